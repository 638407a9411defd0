//go:build linux

package main

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ganglion-mesh/ganglion/pause"
)

// startAgentCommand runs the agent command in a directory of its own.
func startAgentCommand(t *testing.T, dir string, env []string, flags ...string) (*exec.Cmd, *bytes.Buffer) {
	t.Helper()
	args := append([]string{"agent", "--config", os.DevNull, "--name", "solo", "--data-dir", dir + "/data", "--socket", dir + "/s",
		"--bind", "127.0.0.1", "--ports", "gossip=0,mesh=0,nats=0,nats_cluster=0", "--driver", "process"}, flags...)
	cmd := exec.Command(realBinary(t), args...)
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr, cmd.Env = &log, &log, append(plainEnv(), env...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	return cmd, &log
}

// manager plays systemd: it listens to what an agent tells it.
type manager struct{ sock *net.UnixConn }

func newManager(t *testing.T, dir string) (manager, []string) {
	t.Helper()
	sock, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: dir + "/notify", Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { sock.Close() })
	return manager{sock}, []string{"NOTIFY_SOCKET=" + dir + "/notify", "WATCHDOG_USEC=600000"}
}

// hears waits until it is told want, and never unwanted before.
func (m manager) hears(t *testing.T, want string, unwanted ...string) {
	t.Helper()
	m.sock.SetReadDeadline(time.Now().Add(15 * time.Second))
	buf := make([]byte, 1024)
	for {
		n, err := m.sock.Read(buf)
		if err != nil {
			t.Fatalf("did not hear %s: %v", want, err)
		}
		got := string(buf[:n])
		if got == want {
			return
		}
		if slices.Contains(unwanted, got) {
			t.Fatalf("heard %s before %s", got, want)
		}
	}
}

// TestAgentUnderSystemd plays systemd: the agent must say when it is ready, feed
// the watchdog, and end with 0 when it is told to.
func TestAgentUnderSystemd(t *testing.T) {
	dir := t.TempDir()
	m, env := newManager(t, dir)
	cmd, log := startAgentCommand(t, dir, env)
	m.hears(t, "READY=1")
	if got := command(t, []string{"GANGLION_ADDR=unix:" + dir + "/s"}, "mesh"); got.code != 1 || !strings.Contains(got.firstLine(), "has no mesh yet") {
		t.Errorf("ready, but %+v", got)
	}
	m.hears(t, "WATCHDOG=1")
	m.hears(t, "WATCHDOG=1")
	if _, err := os.Stat(dir + "/data/" + probeFile); err != nil {
		t.Error("the watchdog is fed without a write to the disk")
	}
	cmd.Process.Signal(syscall.SIGTERM)
	m.hears(t, "STOPPING=1")
	if err := cmd.Wait(); err != nil {
		t.Errorf("ended with %v\n%s", err, log)
	}
}

// TestAgentThatLeavesUnderSystemd must not say that it stops, or systemd kills
// it: it waits for another mesh, with its watchdog fed.
func TestAgentThatLeavesUnderSystemd(t *testing.T) {
	dir := t.TempDir()
	m, env := newManager(t, dir)
	cmd, _ := startAgentCommand(t, dir, env, "--init")
	m.hears(t, "READY=1")
	at := []string{"GANGLION_ADDR=unix:" + dir + "/s"}
	for end := time.Now().Add(20 * time.Second); ; pause.For(t.Context(), 50*time.Millisecond) {
		got := command(t, at, "leave", "--yes") // refused until the new mesh knows its host
		if got.code == 0 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("leave: %+v", got)
		}
	}
	m.hears(t, "READY=1", "STOPPING=1")
	m.hears(t, "WATCHDOG=1", "STOPPING=1")
	cmd.Process.Signal(syscall.SIGTERM)
	m.hears(t, "STOPPING=1")
}

// TestWatchdogNeedsProgress asks for each proof of progress.
func TestWatchdogNeedsProgress(t *testing.T) {
	for _, broken := range []string{"/v1/version", "/v1/local/status", "disk", ""} {
		dir := t.TempDir()
		mux := http.NewServeMux()
		for path, body := range map[string]string{"/v1/version": `{"mesh":"m"}`, "/v1/local/status": "[]"} {
			mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
				if path == broken {
					<-r.Context().Done() // it hangs
				}
				io.WriteString(w, body)
			})
		}
		l, err := net.Listen("unix", dir+"/s")
		if err != nil {
			t.Fatal(err)
		}
		srv := httptest.NewUnstartedServer(mux)
		srv.Listener.Close()
		srv.Listener = l
		srv.Start()
		w := watchdog{socket: dir + "/s", dir: dir, patience: 100 * time.Millisecond}
		if broken == "disk" {
			w.dir = dir + "/gone"
		}
		if broken == "" {
			w.patience = 10 * time.Second
		}
		if err := w.probe(t.Context()); (err != nil) != (broken != "") {
			t.Errorf("with %q broken: %v", broken, err)
		}
		srv.Close()
	}
}

// TestAgentThatLeaves must go on without a mesh, and take another one.
func TestAgentThatLeaves(t *testing.T) {
	dir := t.TempDir()
	_, log := startAgentCommand(t, dir, nil, "--init")
	env := []string{"GANGLION_ADDR=unix:" + dir + "/s"}
	await := func(code int, contains string, args ...string) {
		t.Helper()
		var got result
		for end := time.Now().Add(20 * time.Second); time.Now().Before(end); pause.For(t.Context(), 50*time.Millisecond) {
			got = command(t, env, args...)
			if got.code == code && strings.Contains(got.out+got.errs, contains) {
				return
			}
		}
		t.Fatalf("ganglion %s: %+v\n%s", strings.Join(args, " "), got, log)
	}
	await(0, "main", "mesh")
	await(0, "has left mesh main", "leave", "--yes")
	await(1, "has no mesh yet", "mesh")
	await(0, "Mesh second is there", "init", "--name", "second")
	await(0, "second", "mesh")
}

// TestAgentThatCannotStart holds one line and the exit code for each reason.
func TestAgentThatCannotStart(t *testing.T) {
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	port := strconv.Itoa(busy.Addr().(*net.TCPAddr).Port)
	for _, tc := range []struct {
		flags []string
		code  int
		line  string
	}{
		{[]string{"--name", "Not A Name"}, 2, "name"},
		{[]string{"--voter", "always"}, 2, "want auto or never"},
		{[]string{"--bind", "nowhere"}, 2, "want an IP address"},
		{[]string{"--seeds", "h1"}, 2, "seeds without token_file"},
		{[]string{"--init", "--ports", "gossip=0,nats=0,nats_cluster=0,mesh=" + port}, 1, "open mesh port"},
	} {
		dir := t.TempDir()
		cmd, log := startAgentCommand(t, dir, nil, tc.flags...)
		cmd.Wait()
		lines := strings.Split(strings.TrimSpace(log.String()), "\n")
		if code := cmd.ProcessState.ExitCode(); code != tc.code || !strings.Contains(lines[len(lines)-1], tc.line) {
			t.Errorf("%v: exit %d, want %d, with %q in the last of\n%s", tc.flags, code, tc.code, tc.line, log)
		}
	}
}
