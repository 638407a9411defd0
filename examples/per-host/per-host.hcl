# One copy on every host that is not a gateway, on the same port everywhere.
app "exporter" {
  per_host = true
  run {
    command = ["/usr/bin/prometheus-node-exporter", "--web.listen-address=${host.addr}:${port.metrics}"]
    env     = { HOST = "${host.name}" }
  }
  port "metrics" { static = 9100 }
  place {
    require = ["role != 'gateway'"]
  }
  check "tcp" {}
}
