package events

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// On a real full disk the ring lives off its own oldest half.
func TestFullDisk(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root to mount a small tmpfs")
	}
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=2m"); err != nil {
		t.Skipf("mount tmpfs: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	r := open(t, filepath.Join(dir, "ring"))
	draft := New(AppSubject("web", "2"), AppNeedsHuman{Reason: strings.Repeat("x", 3000)})
	for range 120 { // most of the ring's budget, but not all of it
		mustAppend(t, r, draft)
	}
	hog, err := os.Create(filepath.Join(dir, "hog"))
	if err != nil {
		t.Fatal(err)
	}
	var failed, recorded int
	for range 400 {
		for { // someone else takes every byte that is free
			if _, err := hog.Write(make([]byte, 4096)); err != nil {
				break
			}
		}
		if _, err := r.Append(draft); err != nil {
			failed++
		} else {
			recorded++
		}
	}
	got := all(t, r, 0)
	wantSeqs(t, got, got[0].Seq, uint64(120+recorded))
	if len(got) < 60 || failed == 0 {
		t.Errorf("%d recorded and %d refused on a full disk; %d kept", recorded, failed, len(got))
	}
	if err := hog.Truncate(0); err != nil {
		t.Fatal(err)
	}
	if e := mustAppend(t, r, draft); e.Dropped == 0 && failed > 0 && recorded == 0 {
		t.Errorf("lost events are not counted: %+v", e)
	}
	if err := errors.Join(hog.Close(), r.Close()); err != nil {
		t.Fatal(err)
	}
}
