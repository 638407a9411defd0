# A web app from a package that apply pushes, and a reflex beside it.
app "web" {
  count = 3
  run {
    command  = ["./web", "-listen", ":${port.http}"]
    artifact = "./web.tar.gz"
    env      = { MODE = "prod" }
  }
  port "http" {}
  resources {
    cpu    = 0.5
    memory = "256MiB"
  }
  place {
    require = ["zone != 'c'"]
    spread  = "zone"
  }
  check "http" {
    path  = "/healthz"
    every = "1s"
  }
  update {
    parallel   = 1
    canary     = 1
    on_failure = "rollback"
  }
}

reflex "shed-cache" {
  when     = "host.memory.available_ratio < 0.05"
  for      = "5s"
  act      = [restart("cache")]
  cooldown = "1m"
  limit    = "3/10m"
}
