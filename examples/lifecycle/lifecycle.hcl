# How copies are updated, restarted and stopped, and what becomes of those whose
# host is lost.
app "worker" {
  count = 6
  run {
    command  = ["bin/worker", "--id", "${copy.n}"]
    artifact = "./worker"
    dir      = "share"
  }
  update {
    strategy    = "rolling"
    parallel    = 2
    healthy_for = "10s"
    deadline    = "5m"
    on_failure  = "hold"
  }
  restart {
    limit       = 10
    window      = "5m"
    backoff_max = "2m"
  }
  disconnect {
    policy = "keep"
    grace  = "1m"
  }
  stop {
    signal = "SIGINT"
    grace  = "30s"
  }
}
