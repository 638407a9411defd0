# The agent's configuration. Every key has a default; see the reference in
# /usr/share/doc/ganglion/reference.md.
#
# name   = "host-1"
# labels = { zone = "a" }
#
# A host that installs itself joins by:
# seeds      = ["first-host"]
# token_file = "/etc/ganglion/token"
