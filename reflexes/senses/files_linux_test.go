package senses

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ganglion-mesh/ganglion/reflexes"
)

// watcher is a sense of files that is being heard, and what has changed so far.
type watcher struct {
	*ear
	t testing.TB
	n int64
}

func watch(t testing.TB, sense *Files) *watcher {
	t.Helper()
	w := &watcher{t: t, n: sense.count}
	w.ear = listen(t, sense)
	w.waitFor(reflexes.SenseCount, "x", known)
	return w
}

func newFiles(t testing.TB, paths ...string) *Files {
	t.Helper()
	return must[*Files](t)(NewFiles(FilesConfig{Target: "x", Paths: paths, Now: bootNow, Relook: 100 * time.Millisecond}))
}

// told waits until one more change of a path was told.
func (w *watcher) told(what, path string) {
	w.t.Helper()
	w.n++
	_, i := w.wait(what, 0, func(f reflexes.Fact) bool { return f.Var == reflexes.SenseCount && f.Value == reflexes.Int(w.n) })
	if f := w.all()[i-1]; f.Var != reflexes.SenseSubject || f.Value.AsString() != path {
		w.t.Errorf("%s: told of %v, want %s", what, f.Value, path)
	}
}

func do(t testing.TB, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// TestFileChanges changes a file in all the ways in which that is done. Each time
// it gets another size: kernels may not tell two changes within 10 ms apart by
// their time.
func TestFileChanges(t *testing.T) {
	dir := t.TempDir()
	file, tmp := filepath.Join(dir, "app.conf"), filepath.Join(dir, ".app.conf.tmp")
	write := func(path string, size int) error { return os.WriteFile(path, make([]byte, size), 0o644) }
	do(t, write(file, 1))
	sense := newFiles(t, file)
	w := watch(t, sense)
	do(t, write(file, 2))
	w.told("written over", file)
	do(t, write(tmp, 3), os.Rename(tmp, file))
	w.told("replaced", file)
	do(t, os.Chmod(file, 0o600))
	w.told("its mode", file)
	do(t, os.Remove(file))
	w.told("removed", file)
	do(t, write(file, 4))
	w.told("made anew", file)

	// Half of it is written, and it is closed later. Another file changes meanwhile
	// and is none of it.
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_APPEND, 0)
	do(t, err)
	_, err = f.WriteString("xx")
	do(t, err, write(tmp, 9), f.Close())
	w.told("appended", file)

	// While nobody looks it changes, and is found to have.
	w.stop()
	do(t, write(file, 7))
	w = watch(t, sense)
	w.told("changed meanwhile", file)
	for _, f := range w.all() {
		if f.Var == reflexes.SenseSubject && f.Value.AsString() != file {
			t.Errorf("told of %v", f)
		}
	}
}

// TestFileBehindALink: a link in the same directory is exchanged, as Kubernetes
// exchanges what it mounts.
func TestFileBehindALink(t *testing.T) {
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	do(t, os.Mkdir(in("v1"), 0o755), os.Mkdir(in("v2"), 0o755), os.WriteFile(in("v1/a"), []byte("1"), 0o644), os.WriteFile(in("v2/a"), []byte("22"), 0o644),
		os.Symlink("v1", in("now")), os.Symlink("now/a", in("a")))
	w := watch(t, newFiles(t, in("a")))
	do(t, os.Symlink("v2", in("next")), os.Rename(in("next"), in("now")))
	w.told("the link", in("a"))
}

// TestDirectoryChanges: what is in a watched directory is told one by one.
func TestDirectoryChanges(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "conf.d")
	w := watch(t, newFiles(t, dir))
	do(t, os.Mkdir(dir, 0o755))
	w.told("it is made", dir)
	// It is watched from the next look on at the latest.
	eventually(t, "it is watched", func() bool {
		do(t, os.WriteFile(filepath.Join(dir, "first"), []byte("1"), 0o644))
		return w.heard() > 3
	})
	w.stop()

	sense := newFiles(t, dir)
	w = watch(t, sense)
	odd := filepath.Join(dir, "b\xff")
	eventually(t, "it is watched", func() bool {
		do(t, os.WriteFile(odd, []byte("1"), 0o644))
		return w.heard() > 1
	})
	for _, f := range w.all() {
		if f.Var == reflexes.SenseSubject && !strings.HasSuffix(f.Value.AsString(), "b�") {
			t.Errorf("told of %v", f)
		}
	}
}

// TestLostFileChanges: when the kernel had no room for events, something in a
// directory has changed, for all anyone knows.
func TestLostFileChanges(t *testing.T) {
	dir := t.TempDir()
	var facts []reflexes.Fact
	f := newFiles(t, dir)
	ino, err := newInotify()
	do(t, err)
	defer ino.close()
	r := &filesRun{Files: f, emit: func(more []reflexes.Fact) { facts = append(facts, more...) }, ino: ino, dirs: map[int32]string{}}
	r.watch()
	r.lookAll()
	r.take([]fileEvent{{wd: -1, mask: unix.IN_Q_OVERFLOW}})
	if v, _ := last(facts, reflexes.SenseCount, "x"); v != reflexes.Int(1) {
		t.Errorf("%v", facts)
	}
}

func TestNewFilesRefuses(t *testing.T) {
	for name, cfg := range map[string]FilesConfig{
		"no clock":   {Target: "x", Paths: []string{"/a"}},
		"no name":    {Now: bootNow, Paths: []string{"/a"}},
		"no path":    {Now: bootNow, Target: "x"},
		"relative":   {Now: bootNow, Target: "x", Paths: []string{"a"}},
		"too many":   {Now: bootNow, Target: "x", Paths: make([]string, 65)},
		"too often":  {Now: bootNow, Target: "x", Paths: []string{"/a"}, Relook: 1},
		"a bad name": {Now: bootNow, Target: "a b", Paths: []string{"/a"}},
	} {
		if _, err := NewFiles(cfg); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
