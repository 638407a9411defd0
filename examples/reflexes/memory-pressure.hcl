# Programs wait for memory a fifth of their time and little is left. Before the
# kernel kills what it likes, the cache gives back what it holds: first it is
# asked, then started anew, and if neither helps a person is told.
reflex "memory-pressure" {
  when      = "host.psi.memory.full_10s > 0.2 && host.memory.available_ratio < 0.1"
  clear     = "host.psi.memory.full_10s < 0.05"
  for       = "3s"
  clear_for = "10s"
  act       = [signal("cache", "SIGHUP"), restart("cache"), emit("memory-pressure", "critical")]
  cooldown  = "30s"
  limit     = "6/30m"
}
