# The process is there and has answered no check for long enough: it is started
# anew. While the host itself is starved, checks that ran out of time say nothing
# about it, and the rule waits. If two starts did not help, a person is told.
reflex "unhealthy-but-running" {
  scope    = "copy:web"
  when     = "app.running && app.uptime_seconds > 60 && check.failures >= 6"
  clear    = "check.failures == 0"
  act      = [restart(), emit("unhealthy-but-running", "critical")]
  cooldown = "1m"
  limit    = "4/30m"
}
