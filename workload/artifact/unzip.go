package artifact

import (
	"archive/zip"
	"context"
	"io"
	"io/fs"
	"strings"
)

// maxDirectory is how much of a zip may be its directory, which is read whole.
const maxDirectory = 32 << 20

// unzip unpacks the entries of a zip.
func unzip(ctx context.Context, t *tree, f file) error {
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	at := &frugal{r: f, left: maxDirectory}
	z, err := zip.NewReader(at, size)
	if err != nil {
		return damaged(err)
	}
	at.left = -1
	if len(z.File) > 2*t.lim.Files {
		return refused("more than %d files", t.lim.Files)
	}
	if len(z.File) == 0 {
		return refused("there is no file in it")
	}
	for _, e := range z.File {
		if err := unzipEntry(ctx, t, e); err != nil {
			return damaged(err)
		}
	}
	return nil
}

func unzipEntry(ctx context.Context, t *tree, e *zip.File) error {
	name, err := t.clean(e.Name)
	if err != nil {
		return err
	}
	mode := e.Mode()
	switch {
	case e.Flags&1 != 0:
		return refused("%q is encrypted", clip(e.Name))
	case mode.IsDir() || strings.HasSuffix(e.Name, "/"):
		return t.dir(name)
	case mode.Type() != 0 && mode.Type() != fs.ModeSymlink:
		return refused("%q is neither file, directory nor link: devices and the like are not unpacked", clip(e.Name))
	}
	r, err := e.Open()
	if err != nil {
		return err
	}
	defer r.Close()
	if mode.Type() == fs.ModeSymlink {
		target, err := io.ReadAll(io.LimitReader(r, int64(t.lim.Name)+1))
		if err != nil {
			return err
		}
		return t.symlink(name, string(target))
	}
	return t.file(name, mode&0o111 != 0, contextReader{ctx, r})
}

// frugal fails once more than left bytes were read; negative means no bound.
type frugal struct {
	r    io.ReaderAt
	left int64
}

func (f *frugal) ReadAt(p []byte, off int64) (int, error) {
	if f.left >= 0 {
		if f.left -= int64(len(p)); f.left < 0 {
			f.left = 0
			return 0, refused("its directory is larger than %s", Bytes(maxDirectory))
		}
	}
	return f.r.ReadAt(p, off)
}
