//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
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

// TestDemoInterrupted: ^C in the middle, with copies running, leaves as little.
func TestDemoInterrupted(t *testing.T) {
	cmd := exec.Command(realBinary(t), "demo")
	cmd.Env = plainEnv()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var errs bytes.Buffer
	cmd.Stderr = &errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	story := ""
	for sc := bufio.NewScanner(out); sc.Scan(); {
		story += sc.Text() + "\n"
		if strings.Contains(sc.Text(), "A copy is killed") {
			cmd.Process.Signal(os.Interrupt)
		}
	}
	cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 1 || errs.String() != "demo: interrupted\n" || !strings.Contains(story, "no process, no file") {
		t.Errorf("exit %d\n%s%s", code, story, errs.String())
	}
	if _, rest, ok := strings.Cut(story, "Files are in "); ok {
		noTrace(t, strings.Fields(rest)[0])
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

	ruling(write, ok, script)
	signing(t, ok)
	afar(t, env, dir)
}

// ruling declares a reflex, sees it live, has what it would do told, and removes it.
func ruling(write func(string), ok func(int, string, ...string) string, script string) {
	write("reflex \"r\" {\n when = \"host.cpu.count > 0\"\n act = [emit(\"seen\", \"info\")]\n mode = \"observe\"\n}\n")
	ok(0, "reflex r", "apply", script)
	ok(0, "nothing to change", "apply", script)
	ok(0, "observe", "reflex", "list")
	ok(0, "\"when\": \"host.cpu.count > 0\"", "reflex", "list", "-o", "json")
	ok(0, "host.cpu.count > 0", "reflex", "show", "r")
	ok(0, "host.cpu.count", "reflex", "vars", "host.cpu.*")
	ok(0, "observed emit(\"seen\")", "reflex", "test", "r", "--fact", "1s host host.cpu.count = 2")
	ok(0, "", "reflex", "history", "r")
	ok(0, "deleted", "delete", "reflex/r", "--yes")
	ok(1, "no such reflex", "delete", "reflex/r", "--yes")
	write("reflex \"r\" {\n when = \"host.cpu.count > 0\"\n act = [emit(\"seen\")]\n}\n")
	ok(2, ".hcl:2", "apply", script) // not only to observe
	write("reflex \"r\" {\n when = \"host.cpu.cont > 0\"\n act = [emit(\"seen\")]\n}\n")
	ok(2, "did you mean host.cpu.count?", "apply", script)
	write("reflex \"r\" {\n scope = \"unit:nginx*\"\n when = \"unit.state == 'failed'\"\n act = [throttle({ cpu = \"50%\" })]\n cooldown = \"1m\"\n limit = \"3/10m\"\n}\n")
	ok(2, "throttle() of a unit needs its name", "apply", script)
	write("reflex \"r\" {\n when = \"host.memory.available_ratio > 0.05\"\n act = [claim(\"10.0.0.9\")]\n cooldown = \"1m\"\n limit = \"3/10m\"\n}\n")
	ok(2, "want 10.0.0.9/32", "apply", script)
	write("sense \"s\" {\n files = [\"/etc/hosts\"]\n}\n")
	ok(2, "+ sense s", "plan", script)
	ok(0, "sense s", "apply", script)
	ok(0, "sense/s: deleted", "delete", "sense/s", "--yes")
	ok(1, "no such sense", "delete", "sense/s", "--yes")
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
