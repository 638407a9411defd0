package gossip

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// keeper takes every note that it hears for its own, as those above do once they
// believe it.
type keeper struct {
	mu   sync.Mutex
	host *host
	has  [][]byte
}

func keepNotes(h *host) *keeper {
	k := &keeper{host: h}
	h.OnNote(func(b []byte) { k.add(bytes.Clone(b)) })
	return k
}

func (k *keeper) add(b []byte) {
	k.mu.Lock()
	if slices.ContainsFunc(k.has, func(o []byte) bool { return bytes.Equal(o, b) }) {
		k.mu.Unlock()
		return
	}
	k.has = append(slices.Clone(k.has), b)
	has := k.has
	k.mu.Unlock()
	k.host.Share(has)
}

func (k *keeper) knows(text string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.ContainsFunc(k.has, func(o []byte) bool { return string(o) == text })
}

func TestNotesReachAll(t *testing.T) {
	inMesh(t, func(m *mesh) {
		hosts := m.five()
		var keepers []*keeper
		for _, h := range hosts {
			keepers = append(keepers, keepNotes(h))
		}
		all := func(text string) func() bool {
			return func() bool {
				return !slices.ContainsFunc(keepers, func(k *keeper) bool { return !k.knows(text) })
			}
		}
		long := strings.Repeat("x", MaxNote)
		keepers[2].add([]byte(long))
		m.within(30*time.Second, "all have the first note", all(long))
		for i := range 5 {
			keepers[i].add([]byte(fmt.Sprint("note ", i)))
		}
		for i := range 5 {
			m.within(30*time.Second, "all have every note", all(fmt.Sprint("note ", i)))
		}
		late := m.start(m.config(6, 1))
		keepers = append(keepers, keepNotes(late))
		m.within(30*time.Second, "a newcomer has them too", all(long))
		m.within(30*time.Second, "a newcomer has them too", all("note 4"))
	})
}

func TestNotesAreBounded(t *testing.T) {
	tb := newTable("h1", func() {})
	heard := 0
	tb.notes.heard = func([]byte) { heard++ }
	tb.notes.hear(make([]byte, MaxNote+1))
	for _, b := range [][]byte{nil, {0, 0}, {0, 0, 0, 9, 1}, {0xff, 0xff, 0xff, 0xff, 1}, {0, 0, 0, 3, 0, 9, 1}, {0, 0, 0, 1, 7}} {
		if _, ok := tb.notes.readAll(b); ok {
			t.Errorf("%v was understood", b)
		}
	}
	if heard != 0 {
		t.Errorf("%d notes were heard of none", heard)
	}
	rest, ok := tb.notes.readAll([]byte{0, 0, 0, 4, 0, 2, 'h', 'i', 'x'})
	if !ok || heard != 1 || string(rest) != "x" {
		t.Errorf("ok %v, heard %d, rest %q", ok, heard, rest)
	}
}
