package consensus

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/ganglion-mesh/ganglion/durable"
)

// Files of a server, below Config.Dir. The id lives in the Raft directory, so
// that whoever loses the log loses the id with it, and can never vote as the
// server that knew more. The marker lives outside, so that a host that lost
// its log cannot found a second mesh under the first one's name.
const (
	raftDirName   = "raft"
	idFileName    = "server-id"
	logFileName   = "log.db"
	markerName    = "was-member"
	reserveName   = "reserve"
	wipedDirName  = "raft.wiped"
	dirMode       = 0o700
	fileMode      = 0o600
	idBytes       = 16
	idTextPattern = `^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`
)

var idText = regexp.MustCompile(idTextPattern)

// loadServerID reads the server's id, or makes it in a fresh directory.
func loadServerID(raftDir string) (string, error) {
	path := filepath.Join(raftDir, idFileName)
	b, err := os.ReadFile(path)
	if err == nil {
		id := strings.TrimSpace(string(b))
		if !idText.MatchString(id) {
			return "", fmt.Errorf("read server id: %s does not hold one; wipe %s, and let the server join again", path, raftDir)
		}
		return id, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("read server id: %w", err)
	}
	if _, err := os.Stat(filepath.Join(raftDir, logFileName)); err == nil {
		return "", fmt.Errorf("read server id: %s is missing beside a log; wipe %s, and let the server join again", path, raftDir)
	}
	id := newServerID()
	if err := durable.Replace(path, []byte(id+"\n"), fileMode); err != nil {
		return "", fmt.Errorf("make server id: %w", err)
	}
	return id, nil
}

// newServerID makes a random UUID (version 4).
func newServerID() string {
	var b [idBytes]byte
	rand.Read(b[:])
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// readMarker tells which server of this host was part of a mesh; empty if none
// was.
func readMarker(dir string) (string, error) {
	b, err := os.ReadFile(filepath.Join(dir, markerName))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("read marker: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}

func writeMarker(dir, id string) error {
	if err := durable.Replace(filepath.Join(dir, markerName), []byte(id+"\n"), fileMode); err != nil {
		return fmt.Errorf("write marker: %w", err)
	}
	return nil
}

// Exists tells whether dir holds a server from an earlier life of the agent.
func Exists(dir string) (bool, error) {
	_, err := os.Stat(filepath.Join(dir, raftDirName))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look for server: %w", err)
	}
	return true, nil
}

// Wipe forgets the server in dir: its log and its id, not that there was one.
// A server that was removed from the mesh is wiped before the host may become
// one again. Its Node must have returned from Run.
func Wipe(dir string) error {
	live, dead := filepath.Join(dir, raftDirName), filepath.Join(dir, wipedDirName)
	if err := os.RemoveAll(dead); err != nil {
		return fmt.Errorf("wipe server: %w", err)
	}
	// Renamed first: a crash in the middle must not leave half a log with an id.
	if err := os.Rename(live, dead); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("wipe server: %w", err)
	}
	if err := os.RemoveAll(dead); err != nil {
		return fmt.Errorf("wipe server: %w", err)
	}
	return nil
}
