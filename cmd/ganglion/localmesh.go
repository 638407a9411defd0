//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/ganglion-mesh/ganglion/agent/api"
	"github.com/ganglion-mesh/ganglion/pause"
)

// localMesh is a mesh on this machine: every host is an agent in its own
// process, with its own directory, ports and copies. All of it lives below one
// directory, and close leaves nothing of it.
type localMesh struct {
	name  string
	dir   string
	bin   string // this binary, where every user may execute it
	hosts []*localHost
}

// localHost is one host of a localMesh.
type localHost struct {
	name  string
	dir   string
	ports hostPorts

	mesh   *localMesh
	client *api.Client
	cmd    *exec.Cmd
	exited chan struct{} // closed when the agent has ended
	reaped sync.WaitGroup
}

// newLocalMesh makes the directory and chooses the ports of n hosts. It starts
// nothing.
func newLocalMesh(name string, n int) (*localMesh, error) {
	dir, bin, err := makeHome(name)
	if err != nil {
		return nil, err
	}
	m := &localMesh{name: name, dir: dir, bin: bin}
	ports, err := choosePorts(n)
	for i := range n {
		if err != nil {
			break
		}
		h := &localHost{name: fmt.Sprintf("h%d", i+1), ports: ports[i], mesh: m}
		h.dir = filepath.Join(dir, h.name)
		if err = os.Mkdir(h.dir, 0o711); err == nil {
			h.client, err = dialSocket(h.socket())
		}
		m.hosts = append(m.hosts, h)
	}
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return m, nil
}

// makeHome makes the directory of a mesh where the copies' users can reach and
// execute things, and puts this binary there: go run's own is in a private
// place.
func makeHome(name string) (dir, bin string, err error) {
	var why []error
	for _, base := range []string{os.TempDir(), "/var/tmp", "/dev/shm"} {
		dir, err := os.MkdirTemp(base, "ganglion-"+name+"-")
		if err == nil {
			if bin, err = settle(dir); err == nil {
				return dir, bin, nil
			}
			os.RemoveAll(dir) //nolint:errcheck // it was just made, by us
		}
		why = append(why, fmt.Errorf("%s: %w", base, err))
	}
	return "", "", fmt.Errorf("make a directory for the mesh: %w; set TMPDIR to one that programs can be run from", errors.Join(why...))
}

// maxHome keeps the paths of the sockets within what the kernel takes.
const maxHome = 90

// settle puts this binary into dir and proves that it runs there.
func settle(dir string) (bin string, err error) {
	if len(dir) > maxHome {
		return "", errors.New("its path is too long for a socket")
	}
	if err := os.Chmod(dir, 0o711); err != nil { //nolint:gosec // copies of other users reach the binary through it
		return "", err
	}
	if os.Getuid() == 0 {
		if err := openToAll(filepath.Dir(dir)); err != nil {
			return "", err
		}
	}
	bin = filepath.Join(dir, "ganglion")
	if err := copyFile(bin, "/proc/self/exe"); err != nil {
		return "", err
	}
	if err := exec.Command(bin, "version").Run(); err != nil {
		return "", fmt.Errorf("run a program there: %w", err)
	}
	return bin, nil
}

// openToAll checks that every user can pass through a directory: copies run as
// users of their own where the agent is root.
func openToAll(dir string) error {
	for ; ; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		if err != nil {
			return err
		}
		if info.Mode().Perm()&0o001 == 0 {
			return fmt.Errorf("other users cannot pass through %s", dir)
		}
		if dir == filepath.Dir(dir) {
			return nil
		}
	}
}

func copyFile(to, from string) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	// The umask may have taken bits that other users need.
	return errors.Join(err, out.Chmod(0o755), out.Close())
}

// start makes one mesh of all hosts: agents first, then init on the first, then
// the others join.
func (m *localMesh) start(ctx context.Context) error {
	for _, h := range m.hosts {
		if err := h.startAgent(); err != nil {
			return err
		}
	}
	for _, h := range m.hosts {
		if err := h.awaitAgent(ctx); err != nil {
			return err
		}
	}
	var made api.InitResponse
	if err := m.hosts[0].client.Post(ctx, "/v1/init", nil, api.InitRequest{Name: m.name}, &made); err != nil {
		return m.hosts[0].blame(fmt.Errorf("init: %w", err))
	}
	for _, h := range m.hosts[1:] {
		req := api.JoinRequest{Seeds: []string{made.Seed}, Token: made.Token}
		if err := h.client.Post(ctx, "/v1/join", nil, req, nil); err != nil {
			return h.blame(fmt.Errorf("join: %w", err))
		}
	}
	return nil
}

func dialSocket(path string) (*api.Client, error) { return api.Dial("unix:"+path, nil) }

func (h *localHost) socket() string  { return filepath.Join(h.dir, "agent.sock") }
func (h *localHost) dataDir() string { return filepath.Join(h.dir, "data") }
func (h *localHost) logPath() string { return filepath.Join(h.dir, "agent.log") }

// startAgent starts the host's agent as a process of its own, which ends with
// ours at the latest.
func (h *localHost) startAgent() error {
	log, err := os.OpenFile(h.logPath(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("start agent of %s: %w", h.name, err)
	}
	defer log.Close()
	p := h.ports
	cmd := exec.Command(h.mesh.bin, "agent", "--config", os.DevNull,
		"--name", h.name, "--data-dir", h.dataDir(), "--socket", h.socket(),
		"--bind", "127.0.0.1", "--advertise", "127.0.0.1", "--driver", "process",
		"--ports", fmt.Sprintf("gossip=%d,mesh=%d,nats=%d,nats_cluster=%d", p.gossip, p.mesh, p.nats, p.cluster),
		"--port-range", fmt.Sprintf("%d-%d", p.first, p.last))
	cmd.Env = plainEnv()
	cmd.Dir = h.dir
	cmd.Stdout, cmd.Stderr = log, log
	// Its own group: ^C is for us, who end the agents in order.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start agent of %s: %w", h.name, err)
	}
	exited := make(chan struct{})
	h.cmd, h.exited = cmd, exited
	h.reaped.Go(func() {
		cmd.Wait() //nolint:errcheck // how it ended is in its log
		close(exited)
	})
	return nil
}

// plainEnv is our environment without what would configure an agent.
func plainEnv() []string {
	var out []string
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "GANGLION_") && !strings.HasPrefix(kv, "NOTIFY_SOCKET=") && !strings.HasPrefix(kv, "WATCHDOG_") && !strings.HasPrefix(kv, "JOURNAL_STREAM=") {
			out = append(out, kv)
		}
	}
	return out
}

// awaitAgent waits until the agent answers.
func (h *localHost) awaitAgent(ctx context.Context) error {
	for {
		if h.client.Get(ctx, "/v1/version", nil, &api.Version{}) == nil {
			return nil
		}
		select {
		case <-h.exited:
			return h.blame(errors.New("the agent ended by itself"))
		default:
		}
		if !pause.For(ctx, 10*time.Millisecond) {
			return h.blame(errors.New("the agent does not answer"))
		}
	}
}

// alive tells whether the host's agent runs.
func (h *localHost) alive() bool {
	if h.cmd == nil {
		return false
	}
	select {
	case <-h.exited:
		return false
	default:
		return true
	}
}

// kill ends the agent with SIGKILL, as a crash would; its copies live on.
func (h *localHost) kill() error {
	if err := h.cmd.Process.Kill(); err != nil {
		return h.blame(err)
	}
	<-h.exited
	return nil
}

// stop ends the agent as systemd does, with force if it takes too long.
func (h *localHost) stop() error {
	if !h.alive() {
		return nil
	}
	h.cmd.Process.Signal(syscall.SIGTERM) //nolint:errcheck // it may just have ended
	select {
	case <-h.exited:
		return nil
	case <-time.After(10 * time.Second):
	}
	return errors.Join(h.blame(errors.New("the agent did not end 10s after SIGTERM")), h.kill())
}

// hostError is a failure that the log of a host may explain.
type hostError struct {
	host *localHost
	err  error
}

func (e *hostError) Error() string { return e.host.name + ": " + e.err.Error() }
func (e *hostError) Unwrap() error { return e.err }

func (h *localHost) blame(err error) error { return &hostError{h, err} }

// close ends every agent and every process of the mesh, and removes its files.
func (m *localMesh) close() error {
	var errs []error
	var ending sync.WaitGroup
	failed := make([]error, len(m.hosts))
	for i, h := range m.hosts {
		ending.Go(func() { failed[i] = h.stop() })
	}
	ending.Wait()
	errs = append(errs, failed...)
	errs = append(errs, killProcesses(m.dir))
	for _, h := range m.hosts {
		h.client.CloseIdle()
		h.reaped.Wait()
	}
	return errors.Join(append(errs, os.RemoveAll(m.dir))...)
}
