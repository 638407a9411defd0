package hook

import (
	"fmt"
	"os"
	"os/user"
	"strconv"
	"syscall"
)

// privateUID is the user of commands that name none: the number before those
// that the process driver gives to apps. Nobody else should have it; who has an
// account by that number is not run as.
const privateUID = 799999

// account is whom a command runs as; nil is this process's own user.
type account struct {
	uid, gid uint32
	groups   []uint32 // nil: none, as the thread that starts it has none
}

func (a *account) root() bool { return a != nil && a.uid == 0 }

func (a *account) credential() *syscall.Credential {
	if a == nil {
		return nil
	}
	return &syscall.Credential{Uid: a.uid, Gid: a.gid, Groups: a.groups, NoSetGroups: a.groups == nil}
}

func accountOf(name string) (*account, error) {
	root := os.Geteuid() == 0
	switch {
	case name == "" && !root:
		return nil, nil
	case name == "":
		id := strconv.Itoa(privateUID)
		if u, err := user.LookupId(id); err == nil {
			return nil, fmt.Errorf("find a user without rights: %s has the number %s; name a user", u.Username, id)
		}
		return &account{uid: privateUID, gid: privateUID}, nil
	case !root:
		return nil, fmt.Errorf("run as user %q: this agent is not root and runs hooks as itself; leave user out", name)
	}
	u, err := user.Lookup(name)
	if err != nil {
		if u, err = user.LookupId(name); err != nil {
			return nil, fmt.Errorf("run as user %q: no such user; create it on this host or leave user out", name)
		}
	}
	a := &account{groups: []uint32{}}
	ids, err := u.GroupIds()
	for i, s := range append([]string{u.Uid, u.Gid}, ids...) {
		n, bad := strconv.ParseUint(s, 10, 32)
		switch {
		case bad != nil:
			err = bad
		case i == 0:
			a.uid = uint32(n)
		case i == 1:
			a.gid = uint32(n)
		default:
			a.groups = append(a.groups, uint32(n))
		}
	}
	if err != nil {
		return nil, fmt.Errorf("run as user %q: %w", name, err)
	}
	return a, nil
}
