package senses

import (
	"errors"
	"os"
	"testing"
	"time"
)

// An alarm rings once for each time it is set, never early, and never for a time that
// was set anew; who waits is told when it is closed.
func TestAlarm(t *testing.T) {
	a := must[*alarm](t)(newAlarm())
	for _, d := range []time.Duration{time.Microsecond, 250 * time.Microsecond, 20 * time.Millisecond} {
		set := bootNow()
		if err := errors.Join(a.set(time.Hour), a.set(d)); err != nil {
			t.Fatal(err)
		}
		if err := a.wait(); err != nil {
			t.Fatal(err)
		}
		if took := bootNow() - set; took < d {
			t.Errorf("set for %s it rang after %s", d, took)
		}
	}
	ended := make(chan error)
	go func() { ended <- a.wait() }()
	a.close()
	if err := <-ended; !errors.Is(err, os.ErrClosed) {
		t.Errorf("closed, it says %v", err)
	}
	if err := a.set(time.Second); err == nil {
		t.Error("it can be set when it is closed")
	}
}
