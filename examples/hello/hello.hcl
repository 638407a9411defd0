# The smallest app: two copies of a program that is on every host.
app "hello" {
  count = 2
  run {
    command = ["sleep", "infinity"]
  }
}
