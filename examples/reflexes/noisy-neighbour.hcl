# The batch job takes more than its share while others wait for a core: it stops,
# as it can be run another time.
reflex "noisy-neighbour" {
  scope     = "copy:batch"
  when      = "app.cpu_cores > 1.5 && host.psi.cpu.some_10s > 0.5"
  clear     = "host.psi.cpu.some_10s < 0.2"
  for       = "10s"
  clear_for = "1m"
  act       = [emit("noisy-neighbour", "warning"), stop()]
  cooldown  = "5m"
  limit     = "3/1h"
}
