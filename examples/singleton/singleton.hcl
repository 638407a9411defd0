# At most one copy in the whole mesh, fenced by a lease; it finds its fencing
# token in GANGLION_TOKEN.
app "billing" {
  singleton = true
  run {
    command = ["/opt/billing/bin/billing", "--state", "/var/lib/billing"]
    user    = "billing"
  }
}
