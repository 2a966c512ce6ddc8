package agent

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"syscall"
)

// FileOptions say how a file is kept.
type FileOptions struct {
	Path string
	Mode fs.FileMode // 0600 if 0; not writable by others, and nothing to execute

	// UID and GID own the file, -1 leaves what the system chooses.
	UID, GID int

	// SharedFolder accepts a folder in which everybody may replace the file.
	SharedFolder bool
}

// File is a [Sink]: a file with a token and nothing else, not even a newline. A new
// token is written beside it, brought to the disk and renamed, so that there is a
// whole token at all times, whenever the agent or the machine dies.
//
// One agent keeps a file. It holds a lock on a file beside it, which stays there.
type File struct {
	options FileOptions
	dir     string
	lock    *os.File
}

// OpenFile checks that a token can be kept at that path, locks it and clears away
// what agents that died have left. A symbolic link is refused: it would be replaced,
// and not what it leads to.
func OpenFile(o FileOptions) (*File, error) {
	if o.Mode == 0 {
		o.Mode = 0o600
	}
	if o.Mode&^0o664 != 0 {
		return nil, fmt.Errorf("mode %04o: a token is no program, and nobody else may write it", o.Mode)
	}
	path, err := filepath.Abs(o.Path)
	if err != nil {
		return nil, err
	}
	o.Path = path
	f := &File{options: o, dir: filepath.Dir(path)}
	if err := errors.Join(f.checkFolder(), f.checkFile()); err != nil {
		return nil, err
	}
	if f.lock, err = lockFile(filepath.Join(f.dir, "."+filepath.Base(path)+".zonemint-lock")); err != nil {
		return nil, fmt.Errorf("%s: %w", o.Path, err)
	}
	if err := errors.Join(f.clear(), f.adjust()); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// Close gives the file up to other agents. The token stays.
func (f *File) Close() error { return f.lock.Close() }

// Path returns where the file is.
func (f *File) Path() string { return f.options.Path }

// checkFolder refuses a folder in which anybody can put another file in the place
// of the token.
func (f *File) checkFolder() error {
	info, err := os.Stat(f.dir)
	switch {
	case err != nil:
		return err
	case !info.IsDir():
		return fmt.Errorf("%s is not a folder", f.dir)
	case info.Mode().Perm()&0o002 != 0 && info.Mode()&fs.ModeSticky == 0 && !f.options.SharedFolder:
		return fmt.Errorf("everybody on this machine may replace files in %s: choose another folder, or chmod o-w it; "+
			"if it is an emptyDir of Kubernetes, where everybody is the pod, --shared-folder accepts it", f.dir)
	default:
		return nil
	}
}

// checkFile refuses what is there and would be lost.
func (f *File) checkFile() error {
	path := f.options.Path
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode()&fs.ModeSymlink != 0:
		return fmt.Errorf("%s is a symbolic link: name the file that it leads to", path)
	case !info.Mode().IsRegular():
		return fmt.Errorf("%s is not a file: %w", path, ErrForeign)
	}
	text, err := readUpTo(path, maxTokenSize)
	if err != nil {
		return err
	}
	if text != "" && !looksLikeToken(text) {
		return fmt.Errorf("%s is not a token: %w; name another file, or remove this one", path, ErrForeign)
	}
	return nil
}

// clear removes the files of writes that did not come to their end.
func (f *File) clear() error {
	left := regexp.MustCompile(`^\.` + regexp.QuoteMeta(filepath.Base(f.options.Path)) + `\.zonemint-[0-9a-f]{16}$`)
	entries, err := os.ReadDir(f.dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if left.MatchString(e.Name()) && e.Type().IsRegular() {
			if err := os.Remove(filepath.Join(f.dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// adjust gives a token that is there the mode and the owner that are wanted: it may
// be kept for long.
func (f *File) adjust() error {
	text, err := f.read()
	if err != nil || text == "" {
		return err
	}
	info, err := os.Lstat(f.options.Path)
	if err != nil {
		return err
	}
	is := func(wanted int, has uint32) bool { return wanted < 0 || int64(wanted) == int64(has) }
	owner, ok := info.Sys().(*syscall.Stat_t)
	if ok && info.Mode() == f.options.Mode && is(f.options.UID, owner.Uid) && is(f.options.GID, owner.Gid) {
		return nil
	}
	return f.put(text)
}

// Read implements [Sink].
func (f *File) Read(context.Context) (string, error) { return f.read() }

func (f *File) read() (string, error) {
	text, err := readUpTo(f.options.Path, maxTokenSize)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return text, err
}

// Write implements [Sink].
func (f *File) Write(_ context.Context, t Token) error { return f.put(t.Raw) }

func (f *File) put(text string) error {
	random := make([]byte, 8)
	if _, err := rand.Read(random); err != nil {
		return err
	}
	temp := filepath.Join(f.dir, "."+filepath.Base(f.options.Path)+".zonemint-"+hex.EncodeToString(random))
	err := f.fill(temp, text)
	if err == nil {
		err = os.Rename(temp, f.options.Path)
	}
	if err != nil {
		if rerr := os.Remove(temp); rerr != nil && !errors.Is(rerr, fs.ErrNotExist) {
			err = errors.Join(err, rerr)
		}
		return err
	}
	return syncFolder(f.dir)
}

// fill writes a new file to the disk. It is its owner's alone until all of it is
// right.
func (f *File) fill(path, text string) (err error) {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	if _, err := file.WriteString(text); err != nil {
		return err
	}
	if f.options.UID >= 0 || f.options.GID >= 0 {
		if err := file.Chown(f.options.UID, f.options.GID); err != nil {
			return err
		}
	}
	if err := file.Chmod(f.options.Mode); err != nil { // the umask does not count
		return err
	}
	return file.Sync()
}

// Remove implements [Sink].
func (f *File) Remove(context.Context) error {
	if err := os.Remove(f.options.Path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return syncFolder(f.dir)
}

// syncFolder brings a rename to the disk.
func syncFolder(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	if err = d.Sync(); errors.Is(err, syscall.EINVAL) || errors.Is(err, errors.ErrUnsupported) {
		err = nil // this file system has no such thing
	}
	return errors.Join(err, d.Close())
}

// readUpTo reads a file that is not longer than that.
func readUpTo(path string, most int64) (string, error) {
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // a pipe would have the agent wait
	if err != nil {
		return "", err
	}
	defer file.Close() //nolint:errcheck // it was read
	info, err := file.Stat()
	if err != nil {
		return "", err
	}
	if !info.Mode().IsRegular() {
		return "", fmt.Errorf("%s is not a file: %w", path, ErrForeign)
	}
	b, err := io.ReadAll(io.LimitReader(file, most+1))
	if err != nil {
		return "", err
	}
	if int64(len(b)) > most {
		return "", fmt.Errorf("%s is too long: %w", path, ErrForeign)
	}
	return string(b), nil
}
