//go:build linux

package nspawn

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// imageName changes when what is in the image changes.
const imageName = "bookworm-2"

// include is what a host has beyond a minimal Debian; rpm is there to try the
// rpm's scripts on.
const include = "systemd,systemd-sysv,dbus,iproute2,procps,rpm"

const mirror = "http://deb.debian.org/debian"

// cacheDir is where images are kept between runs, outside any checkout.
func cacheDir() string {
	if dir := os.Getenv("GANGLION_TEST_CACHE"); dir != "" {
		return dir
	}
	return "/var/cache/ganglion-test"
}

// Unavailable is why this machine cannot boot hosts.
type Unavailable struct{ Why string }

func (e *Unavailable) Error() string { return "boot a host: " + e.Why }

// Image returns the directory of the image, making it first if there is none:
// then it takes a minute. Concurrent callers, also in other processes, wait for
// one another.
func Image(ctx context.Context) (string, error) {
	if err := prerequisites(ctx); err != nil {
		return "", err
	}
	cache := cacheDir()
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", fmt.Errorf("make image: %w", err)
	}
	unlock, err := lock(filepath.Join(cache, imageName+".lock"))
	if err != nil {
		return "", fmt.Errorf("make image: %w", err)
	}
	defer unlock()
	dir := filepath.Join(cache, imageName)
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	half := dir + ".half" // what an earlier, interrupted run may have left
	if err := os.RemoveAll(half); err != nil {
		return "", fmt.Errorf("make image: %w", err)
	}
	if err := bootstrap(ctx, half); err != nil {
		return "", err
	}
	// Each host draws its own machine id, and is named by systemd-nspawn.
	if err := errors.Join(
		os.WriteFile(filepath.Join(half, "etc/machine-id"), nil, 0o444),
		os.RemoveAll(filepath.Join(half, "etc/hostname"))); err != nil {
		return "", fmt.Errorf("make image: %w", err)
	}
	if err := os.Rename(half, dir); err != nil {
		return "", fmt.Errorf("make image: %w", err)
	}
	return dir, nil
}

// bootstrap installs Debian into dir, in the two stages of debootstrap: between
// them dpkg is told not to wait for the disk after each file, which takes most
// of the time on a busy one.
func bootstrap(ctx context.Context, dir string) error {
	stage := func(name string, args ...string) error {
		if out, err := exec.CommandContext(ctx, name, args...).CombinedOutput(); err != nil {
			return &Unavailable{Why: fmt.Sprintf("debootstrap: %v: %s", err, lastLine(out))}
		}
		return nil
	}
	if err := stage("debootstrap", "--foreign", "--variant=minbase", "--include="+include, "bookworm", dir, mirror); err != nil {
		return err
	}
	conf := filepath.Join(dir, "etc/dpkg/dpkg.cfg.d")
	if err := os.MkdirAll(conf, 0o755); err != nil {
		return fmt.Errorf("make image: %w", err)
	}
	if err := os.WriteFile(filepath.Join(conf, "unsafe-io"), []byte("force-unsafe-io\n"), 0o644); err != nil {
		return fmt.Errorf("make image: %w", err)
	}
	if err := stage("chroot", dir, "/debootstrap/debootstrap", "--second-stage"); err != nil {
		return err
	}
	// No test needs the packages again.
	return os.RemoveAll(filepath.Join(dir, "var/cache/apt/archives"))
}

// prerequisites sees to the tools.
func prerequisites(ctx context.Context) error {
	if os.Geteuid() != 0 {
		return &Unavailable{Why: "it needs root"}
	}
	var missing []string
	for tool, pkg := range map[string]string{"systemd-nspawn": "systemd-container", "debootstrap": "debootstrap", "ip": "iproute2", "nsenter": "util-linux"} {
		if _, err := exec.LookPath(tool); err != nil {
			missing = append(missing, pkg)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	why := "missing " + strings.Join(missing, ", ")
	if _, err := exec.LookPath("apt-get"); err != nil {
		return &Unavailable{Why: why}
	}
	for _, args := range [][]string{{"update", "-qq"}, append([]string{"install", "-y", "-qq", "--no-install-recommends"}, missing...)} {
		cmd := exec.CommandContext(ctx, "apt-get", args...)
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		if out, err := cmd.CombinedOutput(); err != nil {
			return &Unavailable{Why: fmt.Sprintf("%s; apt-get %s: %v: %s", why, args[0], err, lastLine(out))}
		}
	}
	return nil
}

func lastLine(out []byte) string {
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	return lines[len(lines)-1]
}

// lock takes an exclusive lock on a file and returns what releases it; so does
// the end of the process.
func lock(path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		if err = unix.Flock(int(f.Fd()), unix.LOCK_EX); !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return func() { f.Close() }, nil
}
