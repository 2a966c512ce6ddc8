package instancekey_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/zonemint/zonemint/instancekey"
)

func TestFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "instance.key")
	key := generate(t)
	if err := key.WriteFile(path); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	must(t, info, err)
	if got := info.Mode(); got != 0o600 {
		t.Errorf("mode is %v", got)
	}
	read, err := instancekey.ReadFile(path)
	must(t, read, err)
	if err := write(t, key).readable(read); err != nil {
		t.Error(err)
	}

	if err := generate(t).WriteFile(path); !errors.Is(err, fs.ErrExist) {
		t.Errorf("over an existing file: %v", err)
	}
	read, err = instancekey.ReadFile(path)
	if must(t, read, err).ID() != key.ID() {
		t.Error("the file was replaced")
	}
	checkOnly(t, dir, "instance.key")
}

// checkOnly fails if dir holds anything else, such as a half-written file.
func checkOnly(t *testing.T, dir string, names ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	must(t, entries, err)
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if strings.Join(got, " ") != strings.Join(names, " ") {
		t.Errorf("the directory holds %q, want %q", got, names)
	}
}

// TestWriteFileRace has several processes create the same file.
func TestWriteFileRace(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "instance.key")
	var wg sync.WaitGroup
	var won atomic.Pointer[instancekey.Key]
	for range 8 {
		key := generate(t)
		wg.Go(func() {
			if err := key.WriteFile(path); err == nil {
				if !won.CompareAndSwap(nil, key) {
					t.Error("two have written the file")
				}
			} else if !errors.Is(err, fs.ErrExist) {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if won.Load() == nil {
		t.Fatal("nobody has written the file")
	}
	read, err := instancekey.ReadFile(path)
	if got := must(t, read, err).ID(); got != won.Load().ID() {
		t.Errorf("the file holds %s, %s was written", got, won.Load().ID())
	}
	checkOnly(t, dir, "instance.key")
}

func TestReadFileRefuses(t *testing.T) {
	path := filepath.Join(t.TempDir(), "instance.key")
	if err := generate(t).WriteFile(path); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		mode fs.FileMode
		ok   bool
	}{
		{0o600, true}, {0o400, true}, {0o700, true},
		{0o640, false}, {0o604, false}, {0o644, false}, {0o620, false}, {0o602, false}, {0o610, false},
	} {
		if err := os.Chmod(path, tc.mode); err != nil {
			t.Fatal(err)
		}
		_, err := instancekey.ReadFile(path)
		if (err == nil) != tc.ok {
			t.Errorf("mode %v: %v", tc.mode, err)
		}
		if !tc.ok && !strings.Contains(err.Error(), "chmod 600 "+path) {
			t.Errorf("mode %v: %v does not say what to do", tc.mode, err)
		}
	}

	if _, err := instancekey.ReadFile(filepath.Dir(path)); err == nil {
		t.Error("a directory was read")
	}
	if _, err := instancekey.ReadFile(path + "x"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	large := path + ".large"
	if err := os.WriteFile(large, make([]byte, 2<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := instancekey.ReadFile(large); err == nil || !strings.Contains(err.Error(), "too large") {
		t.Errorf("a file of 2 MiB: %v", err)
	}
}

func TestReadFileOwner(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give a file away")
	}
	path := filepath.Join(t.TempDir(), "instance.key")
	if err := generate(t).WriteFile(path); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(path, 12345, -1); err != nil {
		t.Fatal(err)
	}
	_, err := instancekey.ReadFile(path)
	if err == nil || !strings.Contains(err.Error(), "chown 0 "+path) {
		t.Errorf("the file of another user: %v", err)
	}
}
