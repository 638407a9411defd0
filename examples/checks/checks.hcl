# Every kind of check. Readiness follows all of them; those with live also
# restart the copy.
app "shop" {
  run {
    command  = ["./shop"]
    artifact = "./shop"
  }
  port "http" {}
  port "admin" {}
  check "http" {
    port     = "http"
    path     = "/healthz"
    every    = "1s"
    timeout  = "500ms"
    grace    = "20s"
    failures = 5
  }
  check "tcp" {
    port = "admin"
    live = false
  }
  check "exec" {
    command = ["./shop", "ping", "${host.addr}:${port.admin}"]
    every   = "30s"
  }
  check "process" {}
  check "smoke" {
    command = ["./shop", "selftest"]
    timeout = "30s"
  }
}
