app "web" {
  run {
    command = ["/bin/true"]
  }
}
