# The agent restarts what exits by itself, ever more slowly. A copy that ended
# five times in ten minutes is not going to be well without a person.
reflex "crash-loop" {
  scope    = "copy:web"
  when     = "exit.count_10m >= 5"
  clear    = "exit.count_10m < 2"
  act      = [emit("crash-loop", "critical")]
  cooldown = "10m"
  limit    = "6/1h"
}
