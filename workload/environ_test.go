package workload

import (
	"slices"
	"testing"
)

func TestEnviron(t *testing.T) {
	s := Spec{
		ID: CopyID{App: "web", N: 2}, Version: "0123456789ab",
		Env: map[string]string{"PORT_HTTP": "20001", "GANGLION_APP": "other", "GANGLION_TOKEN": "9", "STATE_DIR": "/etc"},
	}
	want := []string{
		"GANGLION_APP=web", "GANGLION_COPY=2", "GANGLION_HOST=h1", "GANGLION_START=3", "GANGLION_VERSION=0123456789ab",
		"PATH=" + PlainPath, "PORT_HTTP=20001", "STATE_DIR=/s",
	}
	if got := s.Environ("h1", 3, "/s"); !slices.Equal(got, want) {
		t.Errorf("environment\n got %q\nwant %q", got, want)
	}
	s.Env = map[string]string{"PATH": "/opt/bin"}
	if got := s.Environ("h1", 1, "/s"); !slices.Contains(got, "PATH=/opt/bin") || slices.Contains(got, "PATH="+PlainPath) {
		t.Errorf("the user's PATH is not taken: %q", got)
	}
}
