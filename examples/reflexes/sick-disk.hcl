# The kernel has remounted /var read-only: the disk is failing. Nothing on this host
# cures that, so what runs here goes elsewhere while it still can, and a person is
# told. It needs the mesh's budget: of many hosts at once only a few are emptied, and
# of three with the same trouble none.
reflex "sick-disk" {
  scope    = "disk:/var"
  when     = "disk.read_only"
  for      = "30s"
  act      = [emit("sick-disk", "critical"), drain_self()]
  cooldown = "1h"
  limit    = "1/2h"
}
