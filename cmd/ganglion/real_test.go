//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/ganglion-mesh/ganglion/trust"
)

// TestMain lets the test binary stand in for ganglion: started with a command
// instead of test flags, it is ganglion.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && !strings.HasPrefix(os.Args[1], "-") {
		main()
	}
	code := m.Run()
	if bin, err := binary(); err == nil {
		os.RemoveAll(filepath.Dir(bin))
	}
	os.Exit(code)
}

// binary puts this binary once for all tests where other users can run it.
var binary = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("/tmp", "ganglion-cmd-test-")
	if err != nil {
		return "", err
	}
	bin := filepath.Join(dir, "ganglion")
	return bin, errors.Join(os.Chmod(dir, 0o755), copyFile(bin, "/proc/self/exe"))
})

func realBinary(t *testing.T) string {
	t.Helper()
	if testing.Short() {
		t.Skip("starts real agents")
	}
	bin, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	return bin
}

// command runs the real binary to its end.
func command(t *testing.T, env []string, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, realBinary(t), args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	cmd.Env = append(plainEnv(), env...)
	cmd.Run()
	return result{cmd.ProcessState.ExitCode(), out.String(), errs.String()}
}

// TestDemo runs the demo as whoever runs the tests, and as an ordinary user.
func TestDemo(t *testing.T) {
	users := []*syscall.Credential{nil}
	if os.Getuid() == 0 {
		users = append(users, &syscall.Credential{Uid: 65534, Gid: 65534, Groups: []uint32{}})
	}
	for _, who := range users {
		name := "as " + strconv.Itoa(os.Getuid())
		if who != nil {
			name = "as nobody"
		}
		t.Run(name, func(t *testing.T) {
			begun := time.Now()
			cmd := exec.CommandContext(t.Context(), realBinary(t), "demo")
			cmd.Dir = "/"
			cmd.Env = append(plainEnv(), "HOME=/nonexistent", "TMPDIR=/tmp")
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: who}
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			if took := time.Since(begun); took > time.Minute {
				t.Errorf("it took %s", took)
			}
			for _, line := range []string{
				"h2 and h3 joined", "three copies run", "its agent restarted it by itself", "was elected and committed the change",
				"adopted it: the same pids", "what it ran runs elsewhere", "no process, no file", "Every step held",
			} {
				if !strings.Contains(string(out), line) {
					t.Errorf("the story lacks %q:\n%s", line, out)
				}
			}
			if bytes.Contains(out, []byte("\x1b[")) {
				t.Error("colour where there is no terminal")
			}
			for line := range strings.Lines(string(out)) {
				if _, rest, ok := strings.Cut(line, "Files are in "); ok {
					noTrace(t, strings.Fields(rest)[0])
				}
			}
		})
	}
}

// noTrace checks that nothing of a local mesh is left.
func noTrace(t *testing.T, dir string) {
	t.Helper()
	if _, err := os.Stat(dir); err == nil {
		t.Errorf("%s is left", dir)
	}
	if left := processesBelow(dir); len(left) > 0 {
		t.Errorf("processes are left: %v", left)
	}
}

// TestDev runs a mesh as dev does, uses it by the real commands and interrupts
// it with copies running.
func TestDev(t *testing.T) {
	dev := exec.Command(realBinary(t), "dev", "--hosts", "2")
	var errs bytes.Buffer
	dev.Stderr, dev.Env = &errs, plainEnv()
	stdout, err := dev.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := dev.Start(); err != nil {
		t.Fatal(err)
	}
	ended := false
	defer func() {
		if !ended {
			dev.Process.Signal(os.Interrupt)
			dev.Wait()
		}
	}()
	printed := make([]byte, 0, 4096)
	for !bytes.Contains(printed, []byte("with ^C")) {
		buf := make([]byte, 4096)
		n, err := stdout.Read(buf)
		if err != nil {
			t.Fatalf("dev: %v\n%s%s", err, printed, errs.String())
		}
		printed = append(printed, buf[:n]...)
	}
	_, rest, _ := strings.Cut(string(printed), "export ")
	addr := strings.Fields(rest)[0]
	dir := filepath.Dir(filepath.Dir(strings.TrimPrefix(addr, "GANGLION_ADDR=unix://")))

	useDev(t, []string{addr}, dir)

	dev.Process.Signal(os.Interrupt)
	err = dev.Wait()
	ended = true
	if err != nil {
		t.Errorf("dev: %v\n%s", err, errs.String())
	}
	noTrace(t, dir)
}

// useDev goes through the commands against a real mesh of two hosts.
func useDev(t *testing.T, env []string, dir string) {
	t.Helper()
	script := filepath.Join(t.TempDir(), "app.hcl")
	write := func(text string) {
		if err := os.WriteFile(script, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	ok := func(code int, contains string, args ...string) string {
		t.Helper()
		got := command(t, env, args...)
		if got.code != code || !strings.Contains(got.out+got.errs, contains) {
			t.Errorf("ganglion %s: exit %d, want %d, and %q in\n%s%s", strings.Join(args, " "), got.code, code, contains, got.out, got.errs)
		}
		return got.out
	}
	write("app \"nap\" {\n count = 2\n run {\n command = [\"/bin/sh\", \"-c\", \"echo awake; exec sleep 1000\"]\n }\n update {\n healthy_for = \"200ms\"\n }\n}\n")
	ok(2, "+ app nap", "plan", script)
	ok(0, "runs and is ready", "apply", script)
	ok(0, "nothing to change", "plan", script)
	ok(0, "nap/1", "status", "nap")
	ok(0, `"ready": 2`, "status", "nap", "-o", "json")
	ok(0, "nap/0  awake", "logs", "nap")
	ok(0, "app.nap.0.started", "events", "app.nap.>")
	ok(2, "h2    h1", "plan", "--lose", "h2")
	ok(0, "drained", "drain", "h2")
	ok(0, "takes copies again", "undrain", "h2")
	ok(0, "stopped", "stop", "nap/0")
	ok(0, "started", "start", "nap/0")
	ok(0, "restarted", "restart", "nap")
	ok(0, "mesh1.", "token", "create")
	ok(1, "no such app", "status", "nosuch")
	ok(1, "no such app", "endpoints", "nosuch")
	ok(1, "nosuch", "delete", "nosuch", "--yes")
	ok(1, "nosuch", "drain", "nosuch")
	ok(1, "nosuch", "plan", "--lose", "nosuch")
	ok(2, "--yes", "delete", "nap")

	write("app \"bad\" {\n run {\n command = [\"/nonexistent/program\"]\n }\n}\n")
	begun := time.Now()
	ok(1, "/nonexistent/program", "apply", script)
	if took := time.Since(begun); took > 20*time.Second {
		t.Errorf("a binary that does not exist failed after %s", took)
	}
	ok(0, "held", "status")
	ok(0, "deleted", "delete", "bad", "--yes")

	write("app \"one\" {\n singleton = true\n run {\n command = [\"/bin/true\"]\n }\n}\n")
	ok(2, "not executed yet", "apply", script)

	afar(t, env, dir)
}

// afar asks over the mesh port with a host's certificate.
func afar(t *testing.T, local []string, dir string) {
	t.Helper()
	id, err := trust.LoadIdentity(filepath.Join(dir, "h2", "data", "identity"))
	if err != nil {
		t.Fatal(err)
	}
	keep := t.TempDir()
	env := []string{}
	for key, pem := range map[string][]byte{"CERT": id.Credentials().CertPEM, "KEY": id.Credentials().KeyPEM, "CA": id.Credentials().CAPEM} {
		path := filepath.Join(keep, key)
		if err := os.WriteFile(path, pem, 0o600); err != nil {
			t.Fatal(err)
		}
		env = append(env, "GANGLION_"+key+"="+path)
	}
	peers := command(t, local, "peers").out
	i := strings.Index(peers, "127.0.0.1:")
	if i < 0 {
		t.Fatalf("no peer in %s", peers)
	}
	https := "GANGLION_ADDR=https://" + strings.Fields(peers[i:])[0]
	// The name localhost is in no certificate: hosts are known by their role.
	for _, addr := range []string{https, strings.Replace(https, "127.0.0.1", "localhost", 1)} {
		if got := command(t, append(slices.Clone(env), addr), "mesh"); got.code != 0 || !strings.Contains(got.out, "dev") {
			t.Errorf("%s: %+v", addr, got)
		}
	}
	if got := command(t, []string{https}, "mesh"); got.code != 2 || !strings.Contains(got.firstLine(), "GANGLION_CERT is not set") {
		t.Errorf("without credentials: %+v", got)
	}
}

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
	for end := time.Now().Add(20 * time.Second); ; pause(t.Context(), 50*time.Millisecond) {
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
		for end := time.Now().Add(20 * time.Second); time.Now().Before(end); pause(t.Context(), 50*time.Millisecond) {
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
