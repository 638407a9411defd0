# /var will be full within half an hour, or nearly is: what writes logs there is
# asked to rotate them, and if that does not help a person is told while there is
# still time.
reflex "disk-filling" {
  scope     = "disk:/var"
  when      = "disk.full_in_seconds < 1800 || disk.free_ratio < 0.05"
  clear     = "disk.full_in_seconds > 7200 && disk.free_ratio > 0.1"
  for       = "1m"
  clear_for = "5m"
  act       = [signal("logs", "SIGHUP"), emit("disk-filling", "critical")]
  cooldown  = "5m"
  limit     = "4/1h"
}
