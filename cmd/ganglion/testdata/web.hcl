app "web" {
  count = 2
  run {
    command = ["/usr/bin/web"]
  }
  update {
    healthy_for = "1s"
    deadline    = "3s"
  }
}
