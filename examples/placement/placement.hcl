# Where copies run: hosts that may, hosts that should, and how far apart.
app "cache-eu" {
  count = 4
  run {
    command = ["redis-server", "--port", "${port.redis}"]
  }
  port "redis" {}
  resources {
    cpu    = 1
    memory = "2GiB"
  }
  place {
    require = ["region == 'eu'", "disk in ['ssd', 'nvme']"]
    prefer  = ["generation == '5'"]
    spread  = "rack"
  }
}

app "cache-us" {
  count = 2
  run {
    command = ["redis-server", "--port", "${port.redis}"]
  }
  port "redis" {}
  resources {
    cpu    = 1
    memory = "2GiB"
  }
  place {
    require = ["region == 'us'", "disk in ['ssd', 'nvme']"]
    prefer  = ["generation == '5'"]
    spread  = "rack"
  }
}
