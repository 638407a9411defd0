package topology

import (
	"bytes"
	"fmt"
	"io"
	"time"
)

// Backup is a mesh at one instant, as a file holds it: what was decided and, for
// plans with no agent at hand, what was observed.
type Backup struct {
	State  *State
	Seen   Observations
	Voters []string  // by name
	Saved  time.Time // by the clock of the host that saved it: for people
	By     string    // the release that saved it: for people
}

// backupFrame is constant.
var backupFrame = frame{"GNGLSNAP", 1, "a file of ganglion snapshot save"}

// backupImage is a Backup as plain data.
type backupImage struct {
	SavedUnix int64        `json:"saved_unix"`
	By        string       `json:"by"`
	Voters    []string     `json:"voters"`
	State     []byte       `json:"state"` // as (*State).Write writes it
	Seen      Observations `json:"seen"`  // without Hosts
	Hosts     []seenImage  `json:"hosts"`
}

type seenImage struct {
	Host   string      `json:"host"`
	Seen   HostObs     `json:"seen"` // without Copies
	Copies []copyImage `json:"copies"`
}

type copyImage struct {
	Copy CopyKey `json:"copy"`
	Seen CopyObs `json:"seen"`
}

// Write writes the backup with a checksum. Equal backups write equal bytes.
func (b Backup) Write(w io.Writer) error {
	im := backupImage{SavedUnix: b.Saved.Unix(), By: b.By, Voters: b.Voters, Seen: b.Seen}
	im.Seen.Hosts, im.Seen.Now = nil, time.Time{} // on paper no time passes
	var state bytes.Buffer
	if err := b.State.Write(&state); err != nil {
		return err
	}
	im.State = state.Bytes()
	for _, name := range sortedKeys(b.Seen.Hosts) {
		o := b.Seen.Hosts[name]
		seen := seenImage{Host: name, Seen: o}
		seen.Seen.Copies = nil
		for _, key := range sortedCopies(o.Copies) {
			seen.Copies = append(seen.Copies, copyImage{key, o.Copies[key]})
		}
		im.Hosts = append(im.Hosts, seen)
	}
	if err := backupFrame.write(w, im); err != nil {
		return fmt.Errorf("write snapshot file: %w", err)
	}
	return nil
}

// ReadBackup reads what Write wrote. It refuses what is cut short, altered, of a
// later format, or could not have come about.
func ReadBackup(r io.Reader) (Backup, error) {
	body, err := backupFrame.read(r)
	if err != nil {
		return Backup{}, fmt.Errorf("read snapshot file: %w", err)
	}
	b, err := decodeBackup(body)
	if err != nil {
		return b, fmt.Errorf("read snapshot file: %w", err)
	}
	return b, nil
}

func decodeBackup(body []byte) (Backup, error) {
	var im backupImage
	if err := snapshotCodec.dec.Unmarshal(body, &im); err != nil {
		return Backup{}, err
	}
	state, err := Read(bytes.NewReader(im.State))
	if err != nil {
		return Backup{}, err
	}
	b := Backup{State: state, Saved: time.Unix(im.SavedUnix, 0), By: im.By, Voters: im.Voters, Seen: im.Seen}
	b.Seen.Hosts = make(map[string]HostObs, len(im.Hosts))
	for _, h := range im.Hosts {
		o := h.Seen
		o.Copies = make(map[CopyKey]CopyObs, len(h.Copies))
		for _, c := range h.Copies {
			o.Copies[c.Copy] = c.Seen
		}
		b.Seen.Hosts[h.Host] = o
	}
	return b, nil
}

// WithoutSecrets is the state without the keys by which one could make hosts of
// the mesh, or speak its gossip, and without join tokens.
func (s *State) WithoutSecrets() *State {
	bare := *s
	bare.trust = Trust{CACert: s.trust.CACert}
	bare.tokens = New().tokens
	return &bare
}

// WithKeys is a state of WithoutSecrets with the keys of its mesh.
func (s *State) WithKeys(keys Trust) (*State, error) {
	if !bytes.Equal(keys.CACert, s.trust.CACert) {
		return nil, fmt.Errorf("add keys to the snapshot of mesh %s: they are of another mesh", s.meshName)
	}
	whole := *s
	whole.trust = keys
	return &whole, nil
}
