//go:build linux

package process

import (
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/ganglion-mesh/ganglion/workload"
)

// hold has this process hold n descriptors more, until the test ends.
func hold(t testing.TB, n int) {
	t.Helper()
	for range n {
		fd, err := unix.Open(os.DevNull, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Skipf("needs %d descriptors: %v", n, err)
		}
		t.Cleanup(func() { unix.Close(fd) })
	}
}

// ownTables tells what the threads with a table of their own hold: those that hold
// much less than the process does.
func ownTables(t *testing.T) [][]string {
	t.Helper()
	all, _ := os.ReadDir("/proc/self/fd")
	dirs, err := filepath.Glob("/proc/self/task/*/fd")
	if err != nil {
		t.Fatal(err)
	}
	var tables [][]string
	for _, dir := range dirs {
		entries, err := os.ReadDir(dir)
		if err != nil || len(entries) == 0 || len(entries) > len(all)/2 {
			continue // ended, or one of those that share
		}
		var table []string
		for _, e := range entries {
			target, _ := os.Readlink(filepath.Join(dir, e.Name()))
			table = append(table, target)
		}
		tables = append(tables, table)
	}
	return tables
}

// Launchers hold next to nothing, whatever the agent holds and whatever they have
// started, and are gone after Close.
func TestLaunchersHoldNothing(t *testing.T) {
	hold(t, 300)
	d := fresh(t, Config{})
	s, none := shell(1, "exit 3"), shell(2, "")
	none.Command = []string{dataDir(t)}
	stop(t, startLeased(t, d, leasedShell(3, "exec sleep 1000", time.Minute)), 0) // by another launcher
	for n := range 20 {
		if e := exitFrom(t, start(t, d, s, n+1)); e.Code != 3 {
			t.Errorf("exit %+v", e)
		}
		if _, err := d.Start(ctxOf(t), none, n+1); err == nil {
			t.Error("a directory was started")
		}
		if _, err := d.Exec(ctxOf(t), s, []string{"/bin/true"}); err != nil {
			t.Error(err)
		}
		hold(t, 10)
	}
	tables := ownTables(t)
	if len(tables) != 2 {
		t.Errorf("%d threads have tables of their own, want 2", len(tables))
	}
	for _, table := range tables {
		more := slices.DeleteFunc(slices.Clone(table[3:]), func(target string) bool {
			return target == "anon_inode:[eventpoll]" || target == "anon_inode:[eventfd]"
		})
		if len(more) != 1 || !strings.Contains(more[0], "pidfd") {
			t.Errorf("a launcher holds %v", table)
		}
	}
	d.Close()
	until(t, "the launchers to end", func() bool { return len(ownTables(t)) == 0 })
}

// What is opened without close-on-exec while the agent runs gets into no copy.
func TestCopiesInheritNothing(t *testing.T) {
	d := fresh(t, Config{})
	s := shell(1, "")
	s.Command = []string{self(t)}
	lookAs(t, d, s) // so that there is a launcher
	leak, err := unix.Dup(2)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(leak)
	s.ID.N = 2
	if l := lookAs(t, d, s); !slices.Equal(l.Fds, []int{0, 1, 2}) {
		t.Errorf("descriptors %v", l.Fds)
	}
}

// onThread runs f on a thread of its own.
func onThread(t *testing.T, f func() error) {
	t.Helper()
	err := make(chan error)
	go ownThread(func() { err <- f() })
	if err := <-err; err != nil {
		t.Error(err)
	}
}

// The runtime does on a launcher's thread what it does on any: it stops the world,
// polls when that goes on, and wakes whoever polls. It dies if it misses a
// descriptor there.
func TestRuntimeOnALauncher(t *testing.T) {
	echoes, end := echo(t)
	defer end()
	onThread(t, func() error {
		own, err := newTable()
		if err != nil {
			return err
		}
		for begun, n := time.Now(), 0; n < 100 || time.Since(begun) < 2*time.Second; n++ {
			var stats runtime.MemStats
			runtime.ReadMemStats(&stats) // stops the world
			if n%10 == 0 {
				runtime.GC()
			}
			fired := make(chan struct{})
			time.AfterFunc(50*time.Microsecond, func() { close(fired) }) // sooner than whoever polls would wake
			<-fired
			if _, ok := <-echoes; !ok {
				return errors.New("nobody is woken by the poller any more")
			}
			pid, err := own.forkExec("/bin/true", []string{"true"}, &syscall.ProcAttr{Sys: &syscall.SysProcAttr{}})
			if err != nil {
				return err
			}
			reap(pid)
		}
		return nil
	})
}

// echo has goroutines wait for each other in the runtime's poller, with deadlines,
// and tells each time.
func echo(t *testing.T) (echoes chan struct{}, end func()) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	near, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	far, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	echoes = make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() { _, _ = io.Copy(far, far) })
	wg.Go(func() {
		defer close(echoes)
		for b := []byte{1}; ; {
			_ = near.SetReadDeadline(time.Now().Add(patience))
			if _, err := near.Write(b); err != nil {
				return
			}
			if _, err := near.Read(b); err != nil {
				return
			}
			select {
			case echoes <- struct{}{}:
			default:
			}
		}
	})
	return echoes, func() {
		ln.Close()
		near.Close()
		far.Close()
		wg.Wait()
	}
}

// refuse has the kernel refuse a system call to this thread and to what it starts,
// as the filter of a container may.
func refuse(nr uint32) error {
	filter := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS}, // the number
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: nr, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	return unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&prog)), 0, 0)
}

// Where the kernel refuses what a table takes, nothing has changed.
func TestTableRefused(t *testing.T) {
	for _, nr := range []uint32{unix.SYS_PIDFD_OPEN, unix.SYS_PIDFD_GETFD, unix.SYS_CLOSE_RANGE} {
		onThread(t, func() error {
			if err := refuse(nr); err != nil {
				return err
			}
			if own, err := newTable(); own != nil || !errors.Is(err, errShared) {
				t.Errorf("without system call %d: %v, %v", nr, own, err)
			}
			fd, err := unix.Open(os.DevNull, unix.O_RDONLY|unix.O_CLOEXEC, 0)
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			_, err = os.Readlink("/proc/self/fd/" + strconv.Itoa(fd)) // of the main thread
			return err
		})
	}
}

// An agent whose launchers cannot have tables of their own works all the same.
func TestLaunchersThatShare(t *testing.T) {
	onThread(t, func() error {
		if err := refuse(unix.SYS_PIDFD_GETFD); err != nil {
			return err
		}
		cmd := exec.Command("/proc/self/exe", "-test.v", "-test.run=^(TestNamedUser|TestQuickRestarts|TestStartErrors|TestChecksAreKilledWhole|TestAgentKilled|TestLeasedCopyIsConfined)$")
		cmd.Env = []string{"PATH=" + workload.PlainPath}
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		for _, want := range []string{"--- PASS: TestQuickRestarts ", errShared.Error()} {
			if !strings.Contains(string(out), want) {
				t.Errorf("the agent that shares did not print %q", want)
			}
		}
		return nil
	})
}
