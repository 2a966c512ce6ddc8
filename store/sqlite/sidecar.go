package sqlite

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"
)

// sidecar is a small file beside the database that a backup of the database alone
// does not bring back. It says which copy of the data is in use, and how far that
// had come, and so tells a database that was restored from the one before.
//
// Recognised as another copy is a database
//   - on another device or in another inode than before,
//   - that has no sidecar, or an unreadable one: it was copied elsewhere alone,
//   - that has come less far than the sidecar remembers: an older one was put in
//     the place of this one, be it written over it or in an inode used again.
//
// How far it has come is remembered when the engine is closed and whenever it is
// maintained. After a crash, a database put back that is as new as the last
// maintenance is therefore not recognised if the inode is the same. Neither is one
// that was put back together with its sidecar, device and inode, as by the snapshot
// of a volume: whoever does that deletes the sidecar. To take the same copy for
// another one costs no more than that readers of the feeds begin anew.
type sidecar struct {
	path string

	mu   sync.Mutex
	id   string
	seen int64 // how far the database had come
}

// openSidecar reads the sidecar of a database that has come so far, and makes a new
// one if there is none or it is of another copy. The lock on the database keeps
// other processes away from it.
func openSidecar(path string, progress int64) (*sidecar, error) {
	s := &sidecar{path: filepath.Clean(path)}
	b, err := os.ReadFile(s.path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("sqlite: %w", err)
	}
	if n, _ := fmt.Sscanf(string(b), sidecarFormat, &s.id, &s.seen); n == 2 && s.text() == string(b) && progress >= s.seen {
		return s, nil
	}
	// Before anything is written to the database: dying in between leaves one whose
	// row names another copy.
	s.id, s.seen = rand.Text(), progress
	return s, s.write()
}

const sidecarFormat = "zonemint-copy %s at %d\n"

func (s *sidecar) text() string { return fmt.Sprintf(sidecarFormat, s.id, s.seen) }

// remember writes how far the database has come.
func (s *sidecar) remember(progress int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if progress <= s.seen {
		return nil
	}
	before := s.seen
	s.seen = progress
	err := s.write()
	if err != nil {
		s.seen = before
	}
	return err
}

// write puts a new file in the place of the old one, durably.
func (s *sidecar) write() error {
	next := s.path + ".new"
	err := writeDurably(next, s.text())
	if err == nil {
		err = os.Rename(next, s.path)
	}
	if err == nil {
		err = syncDir(filepath.Dir(s.path))
	}
	if err != nil {
		return fmt.Errorf("sqlite: remembering which copy of the data this is: %w", err)
	}
	return nil
}

func writeDurably(path, text string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) { // of a crash
		return err
	}
	f, err := os.OpenFile(filepath.Clean(path), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

func syncDir(path string) error {
	d, err := os.Open(filepath.Clean(path))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// progress says how far a database has come: a number that grows with every change
// of the ring and of the feeds and is never lowered, 0 before the first start.
func progress(ctx context.Context, db *sql.DB) (n int64, err error) {
	var tables int
	err = db.QueryRowContext(ctx, `SELECT count(*) FROM sqlite_master
		WHERE type = 'table' AND name IN ('installation', 'revocation_feeds')`).Scan(&tables)
	if err != nil || tables < 2 {
		return 0, interpret(err)
	}
	err = db.QueryRowContext(ctx, `SELECT coalesce((SELECT generation FROM installation), 0)
		+ coalesce((SELECT sum(last_seq) FROM revocation_feeds), 0)`).Scan(&n)
	return n, interpret(err)
}

// remember has the sidecar remember how far the database has come.
func (e *Engine) remember(ctx context.Context) error {
	n, err := progress(ctx, e.read)
	if err != nil {
		return fmt.Errorf("sqlite: looking how far the database has come: %w", err)
	}
	return e.sidecar.remember(n)
}

// copyID says which copy of the data the database at path is.
func copyID(path string, s *sidecar) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", fmt.Errorf("sqlite: %w", err)
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return "", fmt.Errorf("sqlite: the system does not say which file %s is", path)
	}
	return fmt.Sprintf("file/%d/%d/%s", stat.Dev, stat.Ino, s.id), nil
}
