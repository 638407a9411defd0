package artifact

import (
	"golang.org/x/sys/unix"
)

// freeSpace is how many bytes may still be written below dir.
func freeSpace(dir string) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, err
	}
	return int64(st.Bavail) * st.Bsize, nil
}
