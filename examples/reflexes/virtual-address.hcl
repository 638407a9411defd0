# Of the hosts with a proxy that is ready one has the address by which clients reach
# it. Where the proxy is not ready for three seconds, the host lets go of the address;
# where the host is lost, another has it when its lease is over. It needs
# reflex_addresses = { "10.0.0.0/24" = "eth0" } in the configuration of the agents.
reflex "virtual-address" {
  scope     = "copy:proxy"
  when      = "app.ready"
  clear     = "!app.ready"
  for       = "2s"
  clear_for = "3s"
  act       = [claim("10.0.0.10/24")]
  cooldown  = "5s"
  limit     = "10/10m"
}
