//go:build linux

package main

import (
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"strings"
	"testing"
)

func TestTimersAreRelaxed(t *testing.T) {
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	before := map[string][]byte{}
	for _, task := range tasks {
		path := "/proc/" + task.Name() + "/timerslack_ns"
		b, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrPermission) {
			t.Skipf("needs the right to see the slack of threads: %v", err)
		}
		if err == nil { // else it has ended
			before[path] = b
			defer os.WriteFile(path, b, 0)
		}
	}
	relaxTimers(slog.New(slog.DiscardHandler))
	for path := range before {
		if b, err := os.ReadFile(path); err == nil && strings.TrimSpace(string(b)) != "1000000" {
			t.Errorf("%s is %s", path, b)
		}
	}
}
