app "web" {
  run {
    command = ["sleep", "1000"]
  }
  reflex "heal" {
    when  = "app.running && check.failures >= 3"
    for   = "2s"
    act   = [restart()]
    limit = "2/10m"
  }
}

reflex "tell" {
  when  = "host.memory.available_ratio < 0.05"
  act   = [emit("memory", "critical")]
  mode  = "observe"
  clear = "host.memory.available_ratio > 0.2"
}
