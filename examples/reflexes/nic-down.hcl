# The tunnel to the other site has been down for two seconds: the app that makes
# it is started anew. It is over when the link is up and has an address again.
reflex "nic-down" {
  scope     = "link:wg0"
  when      = "!link.up"
  clear     = "link.up && link.addresses > 0"
  for       = "2s"
  clear_for = "5s"
  act       = [restart("tunnel"), emit("nic-down", "critical")]
  cooldown  = "15s"
  limit     = "6/30m"
}
