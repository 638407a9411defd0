//go:build linux

package process

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"os"
	"os/user"
	"strconv"
	"sync"
	"syscall"

	"github.com/ganglion-mesh/ganglion/workload"
	"github.com/ganglion-mesh/ganglion/workload/output"
	"github.com/ganglion-mesh/ganglion/workload/program"
)

// account is whom a copy runs as; nil is the agent's own user.
type account struct {
	uid, gid uint32
	groups   []uint32 // nil: none, as the thread that starts it has none
}

func (a *account) credential() *syscall.Credential {
	if a == nil {
		return nil
	}
	return &syscall.Credential{Uid: a.uid, Gid: a.gid, Groups: a.groups, NoSetGroups: a.groups == nil}
}

func (a *account) owner() output.Owner {
	if a == nil {
		return output.Self
	}
	return output.Owner{UID: int(a.uid), GID: int(a.gid)}
}

// kind is the launcher a copy of this user needs.
func (a *account) kind() int {
	if a != nil && a.uid == 0 {
		return plain
	}
	return confined
}

func (d *Driver) account(spec workload.Spec) (*account, error) {
	switch {
	case spec.User == "" && !d.root:
		return nil, nil
	case spec.User == "":
		uid, err := d.users.of(spec.ID.App)
		return &account{uid: uid, gid: uid}, err
	case !d.root:
		return nil, &workload.StartError{ID: spec.ID, Err: fmt.Errorf(
			"run as user %q: this agent is not root and runs copies as itself; leave run.user out", spec.User)}
	}
	a, err := lookup(spec.User)
	if err != nil {
		return nil, &workload.StartError{ID: spec.ID, Err: fmt.Errorf(
			"run as user %q: %w; create it on this host or leave run.user out", spec.User, err)}
	}
	return a, nil
}

func lookup(name string) (*account, error) {
	u, err := user.Lookup(name)
	if err != nil {
		if u, err = user.LookupId(name); err != nil {
			return nil, errors.New("no such user")
		}
	}
	uid, err1 := strconv.ParseUint(u.Uid, 10, 32)
	gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
	ids, err3 := u.GroupIds()
	if err := errors.Join(err1, err2, err3); err != nil {
		return nil, err
	}
	a := &account{uid: uint32(uid), gid: uint32(gid), groups: []uint32{}}
	for _, id := range ids {
		if g, err := strconv.ParseUint(id, 10, 32); err == nil {
			a.groups = append(a.groups, uint32(g))
		}
	}
	return a, nil
}

// users are the private users of apps: numbers of a reserved range, recorded and
// never given to another app, since files of the first may be anywhere.
type users struct {
	path  string
	span  UIDRange
	mu    sync.Mutex
	byApp map[string]uint32
	taken map[uint32]bool
}

func openUsers(path string, span UIDRange) (*users, error) {
	u := &users{path: path, span: span, byApp: map[string]uint32{}, taken: map[uint32]bool{}}
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return u, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &u.byApp)
	}
	if err != nil {
		return nil, fmt.Errorf("read user ids: %w", err)
	}
	for app, uid := range u.byApp {
		if uid == 0 {
			return nil, fmt.Errorf("read user ids of %s: app %q has 0, which is root; remove it", path, app)
		}
		u.taken[uid] = true
	}
	return u, nil
}

// of returns the app's user id, taking one if it has none. The search begins at
// a number drawn from the file's place and the app's name, so that agents that
// share a host (a demonstration) rarely share users.
func (u *users) of(app string) (uint32, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if uid, ok := u.byApp[app]; ok {
		return uid, nil
	}
	h := fnv.New32a()
	_, _ = h.Write([]byte(u.path + "\x00" + app))
	size := uint64(u.span.Last-u.span.First) + 1
	for i := range size {
		uid := u.span.First + uint32((uint64(h.Sum32())+i)%size)
		if u.taken[uid] {
			continue
		}
		if _, err := user.LookupId(strconv.FormatUint(uint64(uid), 10)); err == nil {
			continue // somebody has an account in our range
		}
		return uid, u.record(app, uid)
	}
	return 0, fmt.Errorf("find a user id for app %s: all of %d–%d are taken; widen the range", app, u.span.First, u.span.Last)
}

// has tells whether uid is the recorded user of app.
func (u *users) has(app string, uid uint32) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	got, ok := u.byApp[app]
	return ok && got == uid
}

// record keeps the choice on disk before it is used.
func (u *users) record(app string, uid uint32) error {
	u.byApp[app] = uid
	b, err := json.MarshalIndent(u.byApp, "", "  ")
	if err == nil {
		err = replaceFile(u.path, append(b, '\n'))
	}
	if err != nil {
		delete(u.byApp, app)
		return fmt.Errorf("record user id of app %s: %w", app, err)
	}
	u.taken[uid] = true
	return nil
}

// explain tells what is wrong with a start that failed.
func (p *prepared) explain(err error) error {
	who := "the agent's user"
	if p.user != nil {
		who = fmt.Sprintf("user %d", p.user.uid)
	}
	return program.Attempt{ID: p.spec.ID, Path: p.path, Dir: p.dir, Who: who}.Explain(err)
}
