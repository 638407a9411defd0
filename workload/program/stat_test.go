//go:build linux

package program

import (
	"os"
	"strings"
	"syscall"
	"testing"
)

func TestParseStat(t *testing.T) {
	// A name may hold spaces and parentheses.
	line := "42 (a) R (b) c) S 7 42 41 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 98765 1 2 3" + strings.Repeat(" 0", 26) + " 9\n"
	st, err := parseStat([]byte(line))
	if err != nil || st.State != 'S' || st.Parent != 7 || st.Group != 42 || st.Session != 41 || st.Start != 98765 {
		t.Errorf("%+v, %v", st, err)
	}
	if !st.Running() || !st.ExitKnown || st.Exit.Signal() != syscall.SIGKILL {
		t.Errorf("%+v", st)
	}
	for _, bad := range []string{"", "42", "42 (a) S 1", "42 (a) S x 42 41 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 98765"} {
		if _, err := parseStat([]byte(bad)); err == nil {
			t.Errorf("%q was parsed", bad)
		}
	}
	own, err := ReadStat(os.Getpid())
	if err != nil || own.Start == 0 {
		t.Errorf("own: %+v, %v", own, err)
	}
}

func FuzzParseStat(f *testing.F) {
	f.Add([]byte("42 (a) S 7 42 41 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 98765 1"))
	f.Add([]byte(")"))
	f.Fuzz(func(_ *testing.T, b []byte) { _, _ = parseStat(b) })
}
