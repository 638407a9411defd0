package artifact

import (
	"archive/tar"
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/klauspost/compress/zstd"

	"github.com/ganglion-mesh/ganglion/workload/bootclock"
)

// The bounds of a decoder's memory: a window that real archives need.
const maxWindow = 128 << 20

// format is how a package is packed.
type format string

const (
	formatPlain format = "plain"
	formatTar   format = "tar"
	formatGzip  format = "tar.gz"
	formatZstd  format = "tar.zst"
	formatZip   format = "zip"
)

// headSize is how many bytes tell the format: a tar has its magic at 257.
const headSize = 262

// formatOf tells the format by magic bytes; what something is named says
// nothing.
func formatOf(head []byte) (format, error) {
	is := func(magic string) bool { return bytes.HasPrefix(head, []byte(magic)) }
	switch {
	case is("\x1f\x8b"):
		return formatGzip, nil
	case is("\x28\xb5\x2f\xfd"), len(head) >= 4 && head[0]&0xf0 == 0x50 && string(head[1:4]) == "\x2a\x4d\x18":
		return formatZstd, nil
	case is("PK\x03\x04"), is("PK\x05\x06"):
		return formatZip, nil
	case len(head) >= headSize && string(head[257:262]) == "ustar":
		return formatTar, nil
	case is("\xfd7zXZ\x00"), is("BZh"), is("7z\xbc\xaf\x27\x1c"), is("Rar!\x1a\x07"):
		return "", refused("this kind of archive cannot be unpacked; use tar.gz, tar.zst or zip")
	}
	return formatPlain, nil
}

// file is a package as it is unpacked from.
type file interface {
	io.Reader
	io.ReaderAt
	io.Seeker
}

// unpack reads a package of the given size into t and returns the digest of all
// that it read. Plain is the name of the file that a plain package becomes.
func unpack(ctx context.Context, t *tree, f file, plain string) (Digest, error) {
	head := make([]byte, headSize)
	n, err := f.ReadAt(head, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return "", err
	}
	form, err := formatOf(head[:n])
	if err != nil {
		return "", err
	}
	sum := sha256.New()
	r := io.TeeReader(contextReader{ctx, f}, sum)
	switch form {
	case formatZip:
		if _, err = io.Copy(io.Discard, r); err == nil {
			err = unzip(ctx, t, f)
		}
	case formatPlain:
		if plain == "" {
			return "", refused("it is no archive, and nothing says what its file is called; pack it with ganglion artifact push")
		}
		t.plain = true
		err = t.file(plain, true, r)
	default:
		err = untarAs(ctx, form, t, r)
	}
	if err == nil {
		err = t.finish()
	}
	if err != nil {
		return "", err
	}
	return rest(r, sum)
}

// rest reads what stands behind the end of an archive, so that the digest is of
// the whole.
func rest(r io.Reader, sum hash.Hash) (Digest, error) {
	if _, err := io.Copy(io.Discard, r); err != nil {
		return "", err
	}
	return digestOf(sum.Sum(nil)), nil
}

// untarAs unpacks a tar behind its compression. Decoders read ahead of the tar;
// what they take they take from r, which sees all of it.
func untarAs(ctx context.Context, form format, t *tree, r io.Reader) error {
	buf := bufio.NewReaderSize(r, 256<<10)
	switch form {
	case formatGzip:
		z, err := gzip.NewReader(buf)
		if err != nil {
			return refused("it is damaged: %v", err)
		}
		return untar(ctx, t, z)
	case formatZstd:
		z, err := zstd.NewReader(buf, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderLowmem(true))
		if err != nil {
			return refused("it is damaged: %v", err)
		}
		defer z.Close()
		return untar(ctx, t, z)
	}
	return untar(ctx, t, buf)
}

// untar unpacks the entries of a tar. Headers count too: they were decompressed.
func untar(ctx context.Context, t *tree, r io.Reader) error {
	most := t.most() + int64(t.lim.Files)*headerRoom
	tr := tar.NewReader(contextReader{ctx, &capped{r, most}})
	entries := 0
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			if entries == 0 {
				return refused("there is no file in it")
			}
			return nil
		}
		if err != nil {
			return damaged(err)
		}
		if entries++; entries > 2*t.lim.Files {
			return refused("more than %d files", t.lim.Files)
		}
		if err := untarEntry(t, h, tr); err != nil {
			return damaged(err)
		}
	}
}

// headerRoom is what the headers of a file may have on average.
const headerRoom = 4 << 10

// capped refuses to read more than left bytes.
type capped struct {
	r    io.Reader
	left int64
}

func (c *capped) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	if c.left -= int64(n); c.left < 0 {
		return 0, refused("it unpacks to much more than its size")
	}
	return n, err
}

func untarEntry(t *tree, h *tar.Header, r io.Reader) error {
	if h.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	name, err := t.clean(h.Name)
	if err != nil {
		return err
	}
	switch h.Typeflag {
	case tar.TypeDir:
		return t.dir(name)
	case tar.TypeReg, tar.TypeGNUSparse:
		return t.file(name, h.Mode&0o111 != 0, r)
	case tar.TypeSymlink:
		return t.symlink(name, h.Linkname)
	case tar.TypeLink:
		target, err := t.clean(h.Linkname)
		if err != nil {
			return err
		}
		return t.hardlink(name, target)
	}
	return refused("%q is neither file, directory nor link: devices and the like are not unpacked", clip(h.Name))
}

// damaged marks what a decoder objects to as refused: the bytes are those that
// the digest names, so to read them again helps nothing. Faults of this host
// stay what they are.
func damaged(err error) error {
	var path *fs.PathError
	var link *os.LinkError
	var space *SpaceError
	switch {
	case errors.Is(err, ErrRefused), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded),
		errors.As(err, &path), errors.As(err, &link), errors.As(err, &space):
		return err
	}
	return refused("it is damaged: %v", err)
}

// Check reads a package as Unpack does and writes nothing: what every host would
// refuse is found where it is pushed. Plain is what a file that is no archive is
// to be called.
func Check(ctx context.Context, f *os.File, plain string, lim Limits) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	lim = lim.withDefaults()
	if info.Size() > lim.Package {
		return refused("larger than %s", Bytes(lim.Package))
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	_, err = unpack(ctx, newTree(nil, lim, info.Size()), f, plain)
	return err
}

// treeNames are the directories that a package may be unpacked to: that of an
// archive, and that of a plain file, which is named by who uses it.
func treeNames(d Digest, plain string) []string {
	names := []string{d.hex()}
	if plain = cleanName(plain); plain != "" {
		names = append(names, d.hex()+"."+plain)
	}
	return names
}

func digestOfTree(name string) (Digest, error) {
	hexed, _, _ := strings.Cut(name, ".")
	return ParseDigest(digestPrefix + hexed)
}

// Tree returns the directory that a package is unpacked to, and whether it is.
// Plain is as for Unpack.
func (s *Store) Tree(d Digest, plain string) (dir string, ok bool) {
	for _, name := range treeNames(d, plain) {
		if dir = s.path(dirTrees, name); !s.hasTree(d, name) {
			continue
		}
		if _, err := os.Lstat(dir); err == nil { // else somebody took it away
			s.use(d)
			return dir, true
		}
	}
	return "", false
}

func (s *Store) hasTree(d Digest, name string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.entries[d]
	if e == nil {
		return false
	}
	_, ok := e.trees[name]
	return ok
}

// Unpack unpacks a package that is here, once, and returns its directory: read-
// only, shared by all copies that run from it, and in place only when it is
// whole. Plain is the name of the file that a package which is no archive
// becomes; it is empty where the package is known to be one.
//
// ErrRefused means that the package is not fit to be unpacked, ErrCorrupt that
// what this store had of it was damaged: it has been removed.
func (s *Store) Unpack(ctx context.Context, d Digest, plain string) (string, error) {
	dir, ok := s.Tree(d, plain)
	if ok {
		return dir, nil
	}
	f, err := s.Open(d)
	if err != nil {
		return "", err
	}
	defer f.Close()
	temp, err := os.MkdirTemp(s.path(dirTemp), "tree-")
	if err != nil {
		return "", fmt.Errorf("unpack package %s: %w", d.Short(), err)
	}
	defer removeTree(temp) //nolint:errcheck // what is left is removed at the next start
	t, err := s.unpackTo(ctx, temp, f, d, plain)
	if errors.Is(err, ErrCorrupt) {
		err = errors.Join(err, s.forget(d))
	}
	if err != nil {
		return "", fmt.Errorf("unpack package %s: %w", d.Short(), err)
	}
	names := treeNames(d, plain)
	if !t.plain {
		names = names[:1]
	}
	dir = s.path(dirTrees, names[len(names)-1])
	if err := s.placeTree(temp, dir, d, t); err != nil {
		return "", fmt.Errorf("unpack package %s: %w", d.Short(), err)
	}
	return dir, nil
}

func (s *Store) unpackTo(ctx context.Context, temp string, f *os.File, d Digest, plain string) (*tree, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if err := s.room(info.Size()); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(temp)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	t := newTree(root, s.cfg.Limits, info.Size())
	got, err := unpack(ctx, t, f, cleanName(plain))
	if err != nil {
		// It may be damaged here and nowhere else.
		if errors.Is(err, ErrRefused) && !s.intact(f, d) {
			err = ErrCorrupt
		}
		return nil, err
	}
	if got != d {
		return nil, fmt.Errorf("%w: it is %s", ErrCorrupt, got.Short())
	}
	return t, nil
}

func (s *Store) intact(f *os.File, d Digest) bool {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return false
	}
	sum := sha256.New()
	_, err := io.Copy(sum, f)
	return err == nil && digestOf(sum.Sum(nil)) == d
}

// forget removes a package whose bytes have rotted; what was unpacked of it
// before is good.
func (s *Store) forget(d Digest) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	err := os.Remove(s.path(dirPackages, d.hex()))
	if err == nil {
		s.entry(d).whole = false
	}
	return err
}

// placeTree makes an unpacked tree visible.
func (s *Store) placeTree(temp, dir string, d Digest, t *tree) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	name := dir[strings.LastIndex(dir, "/")+1:]
	e := s.entry(d)
	if _, ok := e.trees[name]; ok { // of it that somebody took away
		if err := s.dropTree(name); err != nil {
			return err
		}
	}
	boot, _ := bootclock.Read()
	err := s.writeJSON(dir+metaSuffix, treeMeta{Bytes: t.bytes, Files: len(t.names), Boot: boot})
	if err == nil {
		err = os.Rename(temp, dir)
	}
	if err == nil { // a directory that may not be written to could not have been moved
		err = os.Chmod(dir, modeDir)
	}
	if err == nil {
		err = s.syncDir(s.path(dirTrees))
	}
	if err == nil {
		e.trees[name] = t.bytes
	}
	return err
}
