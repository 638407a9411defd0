package artifact

import (
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// bootID tells one boot of this machine from the next; empty if it cannot.
func bootID() string {
	b, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(b))
}

// freeSpace is how many bytes may still be written below dir.
func freeSpace(dir string) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, err
	}
	return int64(st.Bavail) * st.Bsize, nil
}
