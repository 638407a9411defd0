package artifact

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/klauspost/compress/zstd"
)

// Local is a package made of a local file or directory, ready to be pushed.
type Local struct {
	Digest Digest
	Size   int64
	Name   string // of what it was made of

	file *os.File
	temp bool
}

// Prepare makes a package of a path: an archive is taken as it is, a directory
// or a plain file is packed, equal content to equal bytes. What hosts would
// refuse is refused here. Close the package when done.
func Prepare(ctx context.Context, path string) (_ *Local, err error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("read package: %w", err)
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("read package: %w", err)
	}
	l := &Local{Name: filepath.Base(abs)}
	defer func() {
		if err != nil {
			l.Close()
			err = fmt.Errorf("read package %s: %w", path, err)
		}
	}()
	switch {
	case info.Mode().IsRegular():
		err = l.fromFile(ctx, path)
	case info.IsDir():
		err = l.pack(func(w io.Writer) error { return packDir(ctx, w, path) })
	default:
		err = refused("it is neither a file nor a directory")
	}
	if err == nil {
		err = l.digest(ctx)
	}
	if err == nil {
		err = Check(ctx, l.file, "", Limits{})
	}
	return l, err
}

func (l *Local) fromFile(ctx context.Context, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	head := make([]byte, headSize)
	n, err := io.ReadFull(f, head)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return errors.Join(err, f.Close())
	}
	form, err := formatOf(head[:n])
	if err == nil && form == formatPlain {
		err = plainName(l.Name)
	}
	if err != nil {
		return errors.Join(err, f.Close())
	}
	if form != formatPlain {
		l.file = f
		return nil
	}
	defer f.Close()
	return l.pack(func(w io.Writer) error { return packFile(ctx, w, f, l.Name) })
}

// plainName refuses a file that is called an archive and is none: to pack it as
// a program would hide a broken download.
func plainName(name string) error {
	for _, suffix := range []string{".tar", ".tar.gz", ".tgz", ".tar.zst", ".tzst", ".zip"} {
		if strings.HasSuffix(strings.ToLower(name), suffix) {
			return refused("it is called an archive, but its content is none")
		}
	}
	return nil
}

// pack writes a package to a temporary file.
func (l *Local) pack(write func(io.Writer) error) error {
	f, err := os.CreateTemp("", "ganglion-package-")
	if err != nil {
		return err
	}
	l.file, l.temp = f, true
	z, err := zstd.NewWriter(f, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedDefault))
	if err != nil {
		return err
	}
	return errors.Join(write(z), z.Close())
}

func (l *Local) digest(ctx context.Context) error {
	r, err := l.Reader()
	if err != nil {
		return err
	}
	sum := newChunker()
	if _, err := io.Copy(sum, contextReader{ctx, r}); err != nil {
		return err
	}
	d, chunks := sum.finish()
	l.Digest, l.Size = d, chunks.Size
	return nil
}

// Reader reads the package from its beginning.
func (l *Local) Reader() (io.Reader, error) {
	_, err := l.file.Seek(0, io.SeekStart)
	return l.file, err
}

// Close ends the package and removes what was made for it.
func (l *Local) Close() error {
	if l.file == nil {
		return nil
	}
	err := l.file.Close()
	if l.temp {
		err = errors.Join(err, os.Remove(l.file.Name()))
	}
	l.file = nil
	return err
}

// packDir writes a directory as a tar that depends on its content alone: sorted,
// without times and owners, modes reduced to executable or not.
func packDir(ctx context.Context, w io.Writer, dir string) error {
	tw := tar.NewWriter(w)
	entries := 0
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil || name == "." {
			return err
		}
		entries++
		return packEntry(ctx, tw, path, filepath.ToSlash(name), d)
	})
	if err == nil && entries == 0 {
		err = refused("the directory is empty")
	}
	if err != nil {
		return err
	}
	return tw.Close()
}

func packEntry(ctx context.Context, tw *tar.Writer, path, name string, d fs.DirEntry) error {
	switch d.Type() {
	case fs.ModeDir:
		return tw.WriteHeader(header(name+"/", tar.TypeDir, 0o755))
	case fs.ModeSymlink:
		target, err := os.Readlink(path)
		if err != nil {
			return err
		}
		h := header(name, tar.TypeSymlink, 0o777)
		h.Linkname = target
		return tw.WriteHeader(h)
	case 0:
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		return packBody(ctx, tw, f, name, false)
	}
	return refused("%s is neither file, directory nor link", name)
}

// packFile writes a single file as a tar with that file in it, to be executed.
func packFile(ctx context.Context, w io.Writer, f *os.File, name string) error {
	tw := tar.NewWriter(w)
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	if err := packBody(ctx, tw, f, name, true); err != nil {
		return err
	}
	return tw.Close()
}

func packBody(ctx context.Context, tw *tar.Writer, f *os.File, name string, exec bool) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	mode := int64(0o644)
	if exec || info.Mode()&0o111 != 0 {
		mode = 0o755
	}
	h := header(name, tar.TypeReg, mode)
	h.Size = info.Size()
	if err := tw.WriteHeader(h); err != nil {
		return err
	}
	n, err := io.Copy(tw, io.LimitReader(contextReader{ctx, f}, h.Size))
	if err == nil && n != h.Size {
		err = fmt.Errorf("%s changed while it was read; try again", name)
	}
	return err
}

func header(name string, kind byte, mode int64) *tar.Header {
	return &tar.Header{Name: name, Typeflag: kind, Mode: mode, ModTime: time.Unix(0, 0)}
}
