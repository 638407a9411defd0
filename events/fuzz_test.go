package events

import (
	"bufio"
	"bytes"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/oklog/ulid/v2"
)

// The scanner finds whole records amid anything, in order, and ends.
func FuzzScan(f *testing.F) {
	f.Add([]byte("junk"), []byte(recordMagic), []byte(recordMagic+"\x00\x00\x00\x00\xff\xff\xff\xff"))
	f.Add([]byte{}, bytes.Repeat([]byte(recordMagic), 50), []byte{0})
	f.Fuzz(func(t *testing.T, before, between, after []byte) {
		b := appendRecord(bytes.Clone(before), 5, 50, []byte("five"))
		b = appendRecord(append(b, between...), 9, 90, []byte("nine"))
		b = append(b, after...)
		s := newScanner(bufio.NewReaderSize(bytes.NewReader(b), maxRecord), 0, 10)
		var seen []uint64
		for {
			rec, err := s.next()
			if err == io.EOF {
				break
			}
			if err != nil || rec.offset < 0 || rec.offset+int64(rec.size) > int64(len(b)) {
				t.Fatalf("record %+v, %v", rec, err)
			}
			seen = append(seen, rec.seq)
		}
		if !slices.IsSorted(seen) || !slices.Contains(seen, 9) {
			t.Fatalf("found %v", seen)
		}
	})
}

// Whatever is in the directory, it opens, appends and reads.
func FuzzOpen(f *testing.F) {
	e := Event{SpecVersion: "1.0", ID: ulid.Make().String(), Seq: 7, Data: []byte("{}")}
	good := appendRecord(nil, 7, 1, e.appendJSON(nil))
	f.Add(good, []byte{}, uint64(7))
	f.Add(append(good[:30:30], good...), []byte("12345678123456781234567812345678"), uint64(1))
	f.Add(appendRecord(nil, maxSeq-1, -1, []byte("{")), bytes.Repeat([]byte{255}, 40), uint64(maxSeq-1))
	f.Add([]byte(strings.Repeat(recordMagic, 200)), []byte{}, uint64(3))
	f.Fuzz(func(t *testing.T, segment, cursor []byte, first uint64) {
		dir := t.TempDir()
		for path, b := range map[string][]byte{
			segmentPath(dir, 1): segment, segmentPath(dir, first): segment, filepath.Join(dir, cursorName): cursor,
			filepath.Join(dir, "99999999999999999999.events"): segment, filepath.Join(dir, "x.events"): cursor,
		} {
			if err := os.WriteFile(path, b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		r := open(t, dir)
		before := r.Last()
		a := mustAppend(t, r, started(1))
		b := mustAppend(t, r, started(2))
		if a.Seq != before+1 || b.Seq != a.Seq+1 {
			t.Fatalf("seqs %d, %d after %d", a.Seq, b.Seq, before)
		}
		got := all(t, r, a.Seq)
		wantSeqs(t, got, a.Seq, b.Seq)
		if _, err := r.Since(time.Unix(0, rand.Int64())); err != nil {
			t.Fatal(err)
		}
	})
}

// Whatever comes over NATS, what is heard of it is an event that some host could tell.
func FuzzHear(f *testing.F) {
	e := Event{SpecVersion: "1.0", ID: ulid.Make().String(), Source: "/hosts/h1", Type: TypePrefix + "app.started", Subject: "app/web/2", Seq: 7, Chain: "a,web/b", Data: []byte("{}")}
	f.Add("ganglion.main.app.web.2.started", string(e.appendJSON(nil)), "12")
	f.Add("ganglion.main.app.web.2.started", `{"specversion":"1.0"}`, "-9223372036854775808")
	f.Add("", "", "")
	l := &Listener{cfg: ListenerConfig{Mesh: "main", Logger: slog.New(slog.DiscardHandler)}, kinds: kindsByType()}
	f.Fuzz(func(t *testing.T, subject, data, age string) {
		h, ok := l.read(&nats.Msg{Subject: subject, Data: []byte(data), Header: nats.Header{headerAge: {age}}})
		if !ok {
			return
		}
		if len(h.Event.ID) != ulid.EncodedSize || len(h.Subject) > 256 || len(h.Event.Chain) > 8*128 || strings.ContainsAny(h.Subject+h.Event.Chain, "*> \n\"") {
			t.Errorf("heard %+v", h)
		}
	})
}
