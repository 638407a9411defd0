package gossip

import (
	"encoding/binary"
	"log/slog"
	"math"
	"testing"
	"time"

	"github.com/hashicorp/memberlist"
)

func newTestTable() (*table, *int) {
	n := new(int)
	t := newTable("me", func() { *n++ })
	t.hosts.Store(50)
	return t, n
}

func heard(host uint64, seq, bits uint32, at time.Time) entry {
	return entry{record: record{host: host, epoch: 1, seq: seq, bits: bits}, born: at}
}

// queued returns what one packet of that many records would carry.
func queued(t *testing.T, tab *table, records int) []entry {
	t.Helper()
	got, err := decodeBatch(tab.appendQueued(appendBatchHeader(nil), records*recordSize), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestTransitionsGoFirst(t *testing.T) {
	tab, _ := newTestTable()
	now := time.Now()
	for h := uint64(1); h <= 20; h++ {
		tab.receive([]entry{heard(h, 1, 0, now)}, now, true)
	}
	for len(queued(t, tab, 20)) > 0 {
	}
	for h := uint64(1); h <= 20; h++ { // refreshes, and one change of state late among them
		bits := uint32(0)
		if h == 15 {
			bits = 4
		}
		tab.receive([]entry{heard(h, 2, bits, now)}, now, true)
	}
	got := queued(t, tab, 3)
	if len(got) != 3 || got[0].host != 15 || got[0].bits != 4 {
		t.Errorf("first in line: %+v", got)
	}
}

func TestNewerReplacesOlderInTheQueue(t *testing.T) {
	tab, _ := newTestTable()
	now := time.Now()
	tab.receive([]entry{heard(1, 1, 0, now)}, now, true)
	for len(queued(t, tab, 9)) > 0 {
	}
	for seq := uint32(2); seq <= 9; seq++ {
		tab.receive([]entry{heard(1, seq, 0, now)}, now, true)
	}
	if got := queued(t, tab, 9); len(got) != 1 || got[0].seq != 9 {
		t.Errorf("queued: %+v", got)
	}
}

func TestOldNewsIsNotPassedOn(t *testing.T) {
	tab, woken := newTestTable()
	now := time.Now()
	tab.receive([]entry{heard(1, 5, 1, now)}, now, true)
	for len(queued(t, tab, 9)) > 0 {
	}
	*woken = 0
	tab.receive([]entry{heard(1, 5, 1, now), heard(1, 4, 2, now)}, now, true)
	if got := queued(t, tab, 9); len(got) != 0 || *woken != 0 {
		t.Errorf("passed on %+v, woke %d", got, *woken)
	}
	// A whole-state exchange passes on changes of state, and no refreshes.
	tab.receive([]entry{heard(1, 6, 1, now)}, now, false)
	if got := queued(t, tab, 9); len(got) != 0 {
		t.Errorf("a refresh was passed on: %+v", got)
	}
	tab.receive([]entry{heard(1, 7, 9, now)}, now, false)
	if got := queued(t, tab, 9); len(got) != 1 || *woken != 1 {
		t.Errorf("passed on %+v, woke %d", got, *woken)
	}
}

func TestForgedNewsOfOneself(t *testing.T) {
	tab, _ := newTestTable()
	now := time.Now()
	tab.publish(Vitals{Bits: 1}, now)
	forged := entry{record: record{host: tab.self, epoch: 41, seq: 7, bits: 99}, born: now}
	tab.receive([]entry{forged}, now, true)
	v, _, _ := tab.get(tab.self, now)
	if v.Bits != 1 || v.Epoch != 42 {
		t.Errorf("own vitals: %+v", v)
	}
	if got := queued(t, tab, 9); len(got) != 1 || got[0].epoch != 42 || got[0].bits != 1 {
		t.Errorf("the answer is %+v", got)
	}
	// Beyond the end there is no stepping; nothing may break.
	forged.epoch = math.MaxUint32
	tab.receive([]entry{forged}, now, true)
	if v, _, _ := tab.get(tab.self, now); v.Bits != 1 {
		t.Errorf("own vitals: %+v", v)
	}
}

func TestTableForgetsAndIsBounded(t *testing.T) {
	tab, _ := newTestTable()
	now := time.Now()
	tab.publish(Vitals{}, now)
	tab.receive([]entry{heard(1, 1, 0, now), heard(2, 1, 0, now.Add(-forgetAfter))}, now, true)
	if _, _, ok := tab.get(2, now); ok {
		t.Error("what is long gone was taken in")
	}
	later := now.Add(forgetAfter)
	if b := tab.appendAll(nil, later); len(b) != 0 {
		t.Error("what is long gone is still sent")
	}
	tab.forget(later)
	if _, _, ok := tab.get(1, later); ok {
		t.Error("what is long gone is kept")
	}
	if _, _, ok := tab.get(tab.self, later); !ok {
		t.Error("its own vitals were forgotten")
	}
	for h := range uint64(maxRecords + 10) {
		tab.receive([]entry{heard(h+10, 1, 0, now)}, now, false)
	}
	if len(tab.entries) != maxRecords {
		t.Errorf("holds %d records", len(tab.entries))
	}
}

// fakeSerf stands where serf's delegate does.
type fakeSerf struct {
	msgs   [][]byte
	merged []byte
	out    [][]byte
}

func (f *fakeSerf) NodeMeta(int) []byte               { return []byte("meta") }
func (f *fakeSerf) NotifyMsg(b []byte)                { f.msgs = append(f.msgs, b) }
func (f *fakeSerf) GetBroadcasts(int, int) [][]byte   { return f.out }
func (f *fakeSerf) LocalState(bool) []byte            { return []byte("serf state") }
func (f *fakeSerf) MergeRemoteState(b []byte, _ bool) { f.merged = b }

var _ memberlist.Delegate = (*fakeSerf)(nil)

func newTestDelegate() (*delegate, *fakeSerf) {
	tab, _ := newTestTable()
	f := &fakeSerf{}
	return &delegate{serf: f, table: tab, log: slog.New(slog.DiscardHandler)}, f
}

func TestDelegateExchangesBothStates(t *testing.T) {
	a, _ := newTestDelegate()
	b, serfB := newTestDelegate()
	now := time.Now()
	a.table.publish(Vitals{Bits: 3}, now)
	a.table.receive([]entry{heard(1, 2, 3, now)}, now, true)
	b.table.self = 99
	b.MergeRemoteState(a.LocalState(true), true)
	if string(serfB.merged) != "serf state" {
		t.Errorf("serf got %q", serfB.merged)
	}
	if v, _, ok := b.table.get(a.table.self, now); !ok || v.Bits != 3 {
		t.Errorf("vitals: %+v, %v", v, ok)
	}
	if _, _, ok := b.table.get(1, now); !ok {
		t.Error("vitals of a third host are missing")
	}
}

// Whatever a holder of the key sends, nothing breaks and serf sees none of it.
func TestDelegateTakesAnything(t *testing.T) {
	d, f := newTestDelegate()
	long := binary.BigEndian.AppendUint32([]byte{stateMarker}, math.MaxUint32)
	for _, b := range [][]byte{nil, {}, {stateMarker}, {stateMarker, 0, 0, 0, 9, 1}, long, {2, 1, 2, 3, 4, 5}, {stateMarker, 0, 0, 0, 0, 9}} {
		d.MergeRemoteState(b, true)
		if f.merged != nil {
			t.Errorf("%v reached serf", b)
		}
	}
	for _, b := range [][]byte{nil, {}, {vitalsMsg}, {vitalsMsg, 1}, {vitalsMsg, 1, 1, 0}, {vitalsMsg, 0, 34}, {200, 1}} {
		d.NotifyMsg(b)
	}
	// User events, queries (which can change keys), replies and relays.
	for kind := byte(2); kind < 20; kind++ {
		d.NotifyMsg([]byte{kind, 0})
	}
	if len(f.msgs) != 0 {
		t.Errorf("serf was given %v", f.msgs)
	}
	d.NotifyMsg([]byte{serfLeave, 1})
	d.NotifyMsg([]byte{serfJoin, 1})
	if len(f.msgs) != 2 {
		t.Errorf("serf was given %v", f.msgs)
	}
	if len(d.table.entries) != 0 {
		t.Error("a record came from nowhere")
	}
	pinger{d, &trips{}}.NotifyPingComplete(&memberlist.Node{Name: "h9"}, 0, []byte{1, 2, 3})
	pinger{d, &trips{}}.NotifyPingComplete(&memberlist.Node{Name: "h9"}, 0, nil)
}

// Serf's messages go first and vitals never overflow a packet.
func TestVitalsTakeTheRoomLeftOver(t *testing.T) {
	const overhead = 3
	now := time.Now()
	for limit := range 1400 {
		d, f := newTestDelegate()
		f.out = [][]byte{make([]byte, 100), make([]byte, 150)}
		for h := uint64(1); h <= 50; h++ {
			d.table.receive([]entry{heard(h, 1, 0, now)}, now, true)
		}
		size := 0
		got := d.GetBroadcasts(overhead, limit)
		for _, m := range got {
			size += len(m) + overhead
		}
		if len(got) > 2 && size > limit {
			t.Fatalf("%d bytes for a limit of %d", size, limit)
		}
		if want := limit-2*overhead-250 >= overhead+1+batchHeader+recordSize; (len(got) == 3) != want {
			t.Fatalf("limit %d: %d messages", limit, len(got))
		}
	}
}

func TestAckCarriesOwnVitals(t *testing.T) {
	a, _ := newTestDelegate()
	b, _ := newTestDelegate()
	b.table.self = 99
	b.NotifyMsg(nil)
	pinger{b, &trips{}}.NotifyPingComplete(&memberlist.Node{Name: "h9"}, 0, pinger{a, &trips{}}.AckPayload()) // nothing published yet
	a.table.publish(Vitals{Bits: 5}, time.Now())
	pinger{b, &trips{}}.NotifyPingComplete(&memberlist.Node{Name: "h9"}, 0, pinger{a, &trips{}}.AckPayload())
	if v, _, ok := b.table.get(a.table.self, time.Now()); !ok || v.Bits != 5 {
		t.Errorf("vitals by probe: %+v, %v", v, ok)
	}
}
