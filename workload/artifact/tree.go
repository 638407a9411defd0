package artifact

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
)

// The modes of what is unpacked: read-only to everybody, executable or not.
// Owner is who runs the agent, so that copies, which are others, cannot change
// what they share.
const (
	modeDir  fs.FileMode = 0o555
	modeFile fs.FileMode = 0o444
	modeExec fs.FileMode = 0o555

	modeUnfinished fs.FileMode = 0o700 // of a directory until the tree is whole
)

// kind is what stands under a name of a tree.
type kind int

const (
	kindNone kind = iota
	kindDir
	kindFile
	kindLink
)

// tree is a package being unpacked. It remembers every name it made and writes
// to no other, so that nothing an archive says can lead a write elsewhere; the
// os.Root beneath is the second wall. Without a root it only checks.
type tree struct {
	root   *os.Root // nil: check alone
	lim    Limits
	packed int64 // bytes of the package
	plain  bool  // it is no archive

	names map[string]kind
	dirs  []string
	links map[string]string // symbolic links, made when all else is there
	bytes int64
}

func newTree(root *os.Root, lim Limits, packed int64) *tree {
	return &tree{root: root, lim: lim, packed: packed, names: map[string]kind{}, links: map[string]string{}}
}

// clean checks a name of an archive and returns it in its one form; empty for the
// package itself.
func (t *tree) clean(name string) (string, error) {
	switch {
	case len(name) > t.lim.Name:
		return "", refused("%q: the path is longer than %d bytes", clip(name), t.lim.Name)
	case strings.ContainsRune(name, 0):
		return "", refused("%q: a zero byte in a name", clip(name))
	case strings.HasPrefix(name, "/"):
		return "", refused("%q: an absolute path", clip(name))
	}
	var parts []string
	for part := range strings.SplitSeq(name, "/") {
		switch {
		case part == "" || part == ".":
		case part == "..":
			return "", refused("%q: the path leads upwards", clip(name))
		case len(part) > 255:
			return "", refused("%q: a name of more than 255 bytes", clip(name))
		default:
			parts = append(parts, part)
		}
	}
	if len(parts) > t.lim.Depth+1 {
		return "", refused("%q: more than %d directories deep", clip(name), t.lim.Depth)
	}
	return strings.Join(parts, "/"), nil
}

// add makes the directories above name and claims it. A directory may come
// twice, anything else once.
func (t *tree) add(name string, k kind) error {
	if dir := path.Dir(name); dir != "." {
		if err := t.dir(dir); err != nil {
			return err
		}
	}
	if t.names[name] != kindNone {
		return refused("%q is in it twice", clip(name))
	}
	if len(t.names) >= t.lim.Files {
		return refused("more than %d files", t.lim.Files)
	}
	t.names[name] = k
	return nil
}

// dir makes a directory and those above it. The name is clean.
func (t *tree) dir(name string) error {
	switch t.names[name] {
	case kindDir:
		return nil
	case kindNone:
	default:
		return refused("%q is a directory and something else", clip(name))
	}
	if name == "" {
		return nil
	}
	if err := t.add(name, kindDir); err != nil {
		return err
	}
	t.dirs = append(t.dirs, name)
	if t.root == nil {
		return nil
	}
	return t.root.Mkdir(name, modeUnfinished)
}

// file makes a regular file of what r yields. The name is clean.
func (t *tree) file(name string, exec bool, r io.Reader) error {
	if name == "" {
		return refused("a file without a name")
	}
	if err := t.add(name, kindFile); err != nil {
		return err
	}
	most := t.most()
	r = io.LimitReader(r, most-t.bytes+1)
	n, err := t.copy(name, exec, r)
	t.bytes += n
	switch {
	case err == nil && t.bytes > t.lim.Bytes:
		return refused("unpacked it is larger than %s", Bytes(t.lim.Bytes))
	case err == nil && t.bytes > most:
		return refused("it unpacks to more than %d times its size", t.lim.Ratio)
	case err != nil:
		return fmt.Errorf("%s: %w", clip(name), err)
	}
	return nil
}

// most is how many bytes all files may have.
func (t *tree) most() int64 { return min(t.lim.Bytes, t.packed*t.lim.Ratio+ratioFree) }

func (t *tree) copy(name string, exec bool, r io.Reader) (n int64, err error) {
	if t.root == nil {
		return io.Copy(io.Discard, r)
	}
	f, err := t.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return 0, err
	}
	n, err = io.Copy(f, r)
	mode := modeFile
	if exec {
		mode = modeExec
	}
	return n, errors.Join(err, f.Chmod(mode), f.Close())
}

// symlink notes a symbolic link, to be made at the end. It must be relative and
// stay inside: it may only begin with "..", not hold one later, so that what
// stands before a ".." is never itself a link.
func (t *tree) symlink(name, target string) error {
	if name == "" {
		return refused("a link without a name")
	}
	switch {
	case target == "" || len(target) > t.lim.Name || strings.ContainsRune(target, 0):
		return refused("link %q: its target cannot be used", clip(name))
	case strings.HasPrefix(target, "/"):
		return refused("link %q leads to %q: only relative links inside the package are allowed", clip(name), clip(target))
	}
	up, down := 0, false
	for part := range strings.SplitSeq(target, "/") {
		switch {
		case part == "" || part == ".":
		case part != "..":
			down = true
		case down:
			return refused("link %q leads to %q: .. may only stand at the beginning", clip(name), clip(target))
		default:
			up++
		}
	}
	if up > strings.Count(name, "/") {
		return refused("link %q leads to %q, out of the package", clip(name), clip(target))
	}
	if err := t.add(name, kindLink); err != nil {
		return err
	}
	t.links[name] = target
	return nil
}

// hardlink makes a second name of a file that is in the tree already.
func (t *tree) hardlink(name, target string) error {
	if name == "" || t.names[target] != kindFile {
		return refused("hard link %q leads to %q, which is no file before it in the package", clip(name), clip(target))
	}
	if err := t.add(name, kindFile); err != nil {
		return err
	}
	if t.root == nil {
		return nil
	}
	return t.root.Link(target, name)
}

// finish makes the links and takes away what was needed to write.
func (t *tree) finish() error {
	if t.root == nil {
		return nil
	}
	for name, target := range t.links {
		if err := t.root.Symlink(target, name); err != nil {
			return err
		}
	}
	for name := range t.links {
		// One that leads nowhere does no harm; os.Root tells one that leads out.
		if _, err := t.root.Stat(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return refused("link %q: %v", clip(name), err)
		}
	}
	slices.Reverse(t.dirs) // the deepest first
	for _, dir := range t.dirs {
		if err := t.root.Chmod(dir, modeDir); err != nil {
			return err
		}
	}
	return nil
}
