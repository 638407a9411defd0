# The host was suspended, or stood still, for longer than what the session cache
# holds stays true: it forgets all of it.
reflex "clock-gap" {
  when     = "clock.gap_seconds > 30"
  act      = [emit("clock-gap", "warning"), signal("sessions", "SIGUSR1")]
  cooldown = "10s"
  limit    = "10/1h"
}
