package instancekey

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// maxFile is more than a key that was rotated a thousand times takes.
const maxFile = 1 << 20

// ReadFile reads an instance key from a file that only its owner can read,
// the owner being the user of this process or root.
func ReadFile(path string) (*Key, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("instance key: %w", err)
	}
	defer f.Close() //nolint:errcheck // it was only read
	// The open file is asked, not the path, which could change in between.
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("instance key: %w", err)
	}
	if err := checkAccess(path, info); err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	defer clear(data)
	if err != nil {
		return nil, fmt.Errorf("instance key: %w", err)
	}
	if len(data) > maxFile {
		return nil, fmt.Errorf("%s is too large to be an instance key", path)
	}
	key, err := Parse(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return key, nil
}

func checkAccess(path string, info fs.FileInfo) error {
	if !info.Mode().IsRegular() {
		return fmt.Errorf("instance key %s is not a regular file", path)
	}
	if err := checkOwner(path, info); err != nil {
		return err
	}
	if perm := info.Mode().Perm(); perm&0o077 != 0 {
		return fmt.Errorf("instance key %s has mode %04o, so that others than its owner can get at it: run chmod 600 %s",
			path, perm, path)
	}
	return nil
}

// WriteFile stores the key in a new file with mode 0600. It never replaces a
// file: whatever the lost instance key had encrypted would be lost with it. The
// error then is fs.ErrExist.
//
// The file appears under its name complete and on disk, or not at all. A crash
// can leave a file behind whose name starts with that name and a dot.
func (k *Key) WriteFile(path string) (err error) {
	data, err := k.Marshal()
	if err != nil {
		return err
	}
	defer clear(data)
	dir := filepath.Dir(path)
	temp, err := os.CreateTemp(dir, filepath.Base(path)+".*") // mode 0600
	if err != nil {
		return fmt.Errorf("instance key: %w", err)
	}
	defer func() { err = errors.Join(err, os.Remove(temp.Name())) }()
	if err := fill(temp, data); err != nil {
		return fmt.Errorf("instance key: %w", err)
	}
	// Unlike a rename, a link fails if the name is taken.
	if err := os.Link(temp.Name(), path); errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("instance key %s exists and is never overwritten: %w", path, fs.ErrExist)
	} else if err != nil {
		return fmt.Errorf("instance key: %w", err)
	}
	if err := syncDir(dir); err != nil {
		return fmt.Errorf("instance key: %w", err)
	}
	return nil
}

func fill(f *os.File, data []byte) error {
	_, err := f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
