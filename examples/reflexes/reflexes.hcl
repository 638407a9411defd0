# Rules that a host runs by itself: one bound to an app, one of the host, and
# one that only watches. Not yet executed.
app "queue" {
  run {
    command = ["/opt/queue/bin/queue"]
  }
  reflex "slow-down" {
    when      = "app.mem_ratio > 0.95 && psi.memory.full_10s > 0.2"
    clear     = "app.mem_ratio < 0.80"
    for       = "3s"
    clear_for = "10s"
    max_age   = "2s"
    act       = [throttle("queue", { cpu = "50%" }), signal("queue", "SIGUSR1")]
    cooldown  = "30s"
    limit     = "5/10m"
  }
}

reflex "disk-full" {
  when     = "host.disk.free_ratio < 0.02"
  act      = [emit("disk-full", "critical"), drain_self()]
  cooldown = "10m"
  limit    = "1/1h"
}

reflex "link-watch" {
  when  = "host.link.down > 0"
  act   = [run("/usr/local/lib/ganglion/link-report", "--verbose"), webhook("https://example.org/hook")]
  limit = "3/10m"
  mode  = "observe"
}
