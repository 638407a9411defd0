package gossip

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

var epoch0 = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// genEntry draws from few values, so that ties and near-ties are common.
func genEntry(t *rapid.T, host uint64) entry {
	small := rapid.IntRange(0, 2)
	return entry{
		record: record{
			host:  host,
			epoch: uint32(small.Draw(t, "epoch")), seq: uint32(small.Draw(t, "seq")),
			bits: uint32(small.Draw(t, "bits")), gauges: [4]uint8{uint8(small.Draw(t, "gauge"))},
			detail: uint64(small.Draw(t, "detail")),
		},
		born: epoch0.Add(time.Duration(small.Draw(t, "age")) * time.Second),
	}
}

func TestMergeIsASemilattice(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b, c := genEntry(t, 1), genEntry(t, 1), genEntry(t, 1)
		if merge(a, b) != merge(b, a) {
			t.Fatal("not commutative")
		}
		if merge(merge(a, b), c) != merge(a, merge(b, c)) {
			t.Fatal("not associative")
		}
		if merge(a, a) != a {
			t.Fatal("not idempotent")
		}
		m := merge(a, b)
		if m != a && m != b {
			t.Fatal("made up")
		}
		if m.epoch < max(a.epoch, b.epoch) || a.epoch == b.epoch && m.seq < max(a.seq, b.seq) {
			t.Fatal("older replaced newer")
		}
		if a.record == b.record && m.born.After(a.born) {
			t.Fatal("a copy made a record younger")
		}
	})
}

// Two tables given the same messages in any order, with any repeats, agree.
func TestTablesConverge(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var msgs []entry
		for range rapid.IntRange(1, 12).Draw(t, "n") {
			msgs = append(msgs, genEntry(t, uint64(rapid.IntRange(1, 3).Draw(t, "host"))))
		}
		now := epoch0.Add(10 * time.Second)
		ta, tb := newTable("a", func() {}), newTable("b", func() {})
		ta.receive(msgs, now, true)
		for _, i := range rapid.SliceOfN(rapid.IntRange(0, len(msgs)-1), 0, 20).Draw(t, "repeats") {
			tb.receive(msgs[i:i+1], now, false)
		}
		for _, m := range rapid.Permutation(msgs).Draw(t, "order") {
			tb.receive([]entry{m}, now, rapid.Bool().Draw(t, "relay"))
		}
		for h := uint64(1); h <= 3; h++ {
			if ta.entries[h] != tb.entries[h] {
				t.Fatalf("host %d: %+v and %+v", h, ta.entries[h], tb.entries[h])
			}
		}
	})
}

func TestRecordSurvivesTheWire(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		e := genEntry(t, rapid.Uint64().Draw(t, "host"))
		e.epoch, e.bits, e.detail = rapid.Uint32().Draw(t, "e"), rapid.Uint32().Draw(t, "b"), rapid.Uint64().Draw(t, "d")
		age := time.Duration(rapid.Int64Range(0, int64(2*time.Hour)).Draw(t, "age"))
		now := e.born.Add(age)
		b := appendRecord(appendBatchHeader(nil), e, now)
		if len(b)-batchHeader != recordSize || recordSize > 60 {
			t.Fatalf("a record takes %d bytes", len(b)-batchHeader)
		}
		there := epoch0.AddDate(50, 0, 0) // another host, another clock
		got, err := decodeBatch(b, there)
		if err != nil || len(got) != 1 || got[0].record != e.record {
			t.Fatalf("%+v became %+v, %v", e, got, err)
		}
		want := min(age.Truncate(ageUnit), 65535*ageUnit)
		if there.Sub(got[0].born) != want {
			t.Fatalf("age %v became %v", age, there.Sub(got[0].born))
		}
	})
}

// Passing a record back and forth must not age it.
func TestRelaysDoNotAge(t *testing.T) {
	now := epoch0.Add(12345 * time.Millisecond)
	e := entry{record: record{host: 1}, born: epoch0}
	for range 100 {
		got, err := decodeBatch(appendRecord(appendBatchHeader(nil), e, now), now)
		if err != nil {
			t.Fatal(err)
		}
		e = merge(e, got[0])
	}
	if !e.born.Equal(epoch0) {
		t.Errorf("aged by %v", epoch0.Sub(e.born))
	}
}

// A later version may send longer records; what is known of them is read.
func TestLongerRecordsAreRead(t *testing.T) {
	e := entry{record: record{host: 7, seq: 3}, born: epoch0}
	one := append(appendRecord(nil, e, epoch0), "more"...)
	b := append([]byte{batchVersion + 1, recordSize + 4}, one...)
	got, err := decodeBatch(append(b, one...), epoch0)
	if err != nil || len(got) != 2 || got[1] != e {
		t.Errorf("%+v, %v", got, err)
	}
}

func FuzzDecodeBatch(f *testing.F) {
	f.Add(appendRecord(appendBatchHeader(nil), entry{record: record{host: 1}, born: epoch0}, epoch0))
	f.Add([]byte{1, 0})
	f.Add([]byte{1, 34, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := decodeBatch(b, epoch0)
		if err != nil && got != nil {
			t.Fatal("half an answer")
		}
		if len(got)*recordSize > len(b) {
			t.Fatalf("%d records in %d bytes", len(got), len(b))
		}
	})
}
