# A unit of systemd that is not ours to restart has failed, or has been starting
# for two minutes: nobody waits for it in silence. Where the agents' reflex_units
# name it, a restart() after the emit() heals it.
reflex "stuck-unit" {
  scope    = "unit:nginx.service"
  when     = "unit.state == 'failed' || unit.state == 'activating'"
  clear    = "unit.state == 'active'"
  for      = "2m"
  act      = [emit("stuck-unit", "critical")]
  cooldown = "15m"
  limit    = "4/1h"
}
