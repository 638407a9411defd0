# All copies of the new version beside the old ones, then the change-over.
app "api" {
  count = 3
  run {
    command = ["/opt/api/bin/api", "--listen", "${host.addr}:${port.http}"]
  }
  port "http" {}
  check "http" {}
  update {
    strategy   = "blue-green"
    on_failure = "forward"
  }
}
