package agent_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/zonemint/zonemint/agent"
)

func options(path string) agent.FileOptions { return agent.FileOptions{Path: path, UID: -1, GID: -1} }

func open(t *testing.T, o agent.FileOptions) *agent.File {
	t.Helper()
	f, err := agent.OpenFile(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

func TestAFileHasTheTokenAndNothingElse(t *testing.T) {
	path := filepath.Join(t.TempDir(), "token")
	for mode, want := range map[os.FileMode]os.FileMode{0: 0o600, 0o640: 0o640, 0o644: 0o644, 0o400: 0o400} {
		o := options(path)
		o.Mode = mode
		f := open(t, o)
		raw := zoneToken("a", time.Now(), life)
		if err := f.Write(t.Context(), agent.Token{Raw: raw}); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(path)
		if err != nil || string(b) != raw {
			t.Errorf("the file has %q, %v", b, err)
		}
		info, err := os.Stat(path)
		if err != nil || info.Mode() != want {
			t.Errorf("mode %v, %v, want %v", info.Mode(), err, want)
		}
		if got, err := f.Read(t.Context()); got != raw || err != nil {
			t.Errorf("read %q, %v", got, err)
		}
		_ = f.Close()
	}
}

func TestModesThatAreNoneForATokenAreRefused(t *testing.T) {
	for _, mode := range []os.FileMode{0o602, 0o700, 0o666, 0o4600} {
		o := options(filepath.Join(t.TempDir(), "token"))
		o.Mode = mode
		if f, err := agent.OpenFile(o); err == nil {
			_ = f.Close()
			t.Errorf("%o was accepted", mode)
		}
	}
}

func TestPlacesThatAreRefused(t *testing.T) {
	for name, make := range map[string]func(t *testing.T, path string){
		"a symbolic link":        func(t *testing.T, path string) { must(t, os.Symlink(path+"-target", path)) },
		"a folder":               func(t *testing.T, path string) { must(t, os.Mkdir(path, 0o700)) },
		"another file":           func(t *testing.T, path string) { must(t, os.WriteFile(path, []byte("root:x:0:0:"), 0o600)) },
		"another file with dots": func(t *testing.T, path string) { must(t, os.WriteFile(path, []byte("a.b.c"), 0o600)) },
		"a large file": func(t *testing.T, path string) {
			must(t, os.WriteFile(path, []byte(strings.Repeat("a", 1<<20)), 0o600))
		},
		"a folder for everybody":     func(t *testing.T, path string) { must(t, os.Chmod(filepath.Dir(path), 0o777)) },
		"a folder that is not there": func(t *testing.T, path string) { must(t, os.Remove(filepath.Dir(path))) },
		"a lock that is a link": func(t *testing.T, path string) {
			must(t, os.Symlink(path+"-target", filepath.Join(filepath.Dir(path), ".token.zonemint-lock")))
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "folder", "token")
			must(t, os.Mkdir(filepath.Dir(path), 0o700))
			make(t, path)
			if f, err := agent.OpenFile(options(path)); err == nil {
				_ = f.Close()
				t.Error("it was accepted")
			}
			if _, err := os.Stat(path + "-target"); !errors.Is(err, os.ErrNotExist) {
				t.Error("the link was followed:", err)
			}
		})
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestAFolderForEverybodyWithTheStickyBitIsFine(t *testing.T) {
	path := filepath.Join(t.TempDir(), "folder", "token")
	must(t, os.Mkdir(filepath.Dir(path), 0o700))
	must(t, os.Chmod(filepath.Dir(path), 0o777|os.ModeSticky))
	open(t, options(path))
}

func TestAFolderForEverybodyIsAcceptedIfThatIsMeant(t *testing.T) {
	o := options(filepath.Join(t.TempDir(), "folder", "token"))
	o.SharedFolder = true
	must(t, os.Mkdir(filepath.Dir(o.Path), 0o700))
	must(t, os.Chmod(filepath.Dir(o.Path), 0o777))
	must(t, open(t, o).Write(t.Context(), agent.Token{Raw: "a.b.c"}))
}

func TestOneAgentKeepsAFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "token")
	f := open(t, options(path))
	if _, err := agent.OpenFile(options(path)); err == nil || !strings.Contains(err.Error(), "another agent") {
		t.Error("a second agent:", err)
	}
	open(t, options(path+"2"))
	_ = f.Close()
	open(t, options(path))
}

func TestWhatDeadAgentsLeftIsClearedAway(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "tok.en")
	others := []string{".tok.en.zonemint-0123456789abcdeX", ".tok.en.zonemint-0123456789abcdef0", ".tokxen.zonemint-0123456789abcdef", ".tok.en.bak", "tok.en.zonemint-0123456789abcdef"}
	for _, name := range append([]string{".tok.en.zonemint-0123456789abcdef"}, others...) {
		must(t, os.WriteFile(filepath.Join(dir, name), []byte("half"), 0o600))
	}
	open(t, options(path))
	want := append(slices.Clone(others), ".tok.en.zonemint-lock")
	slices.Sort(want)
	if got := names(t, dir); !slices.Equal(got, want) {
		t.Errorf("left are %q, want %q", got, want)
	}
}

func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	must(t, err)
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}

// TestAWriteThatFailsLeavesTheFolderAsItWas has a folder where the file should go.
func TestAWriteThatFailsLeavesTheFolderAsItWas(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "token")
	f := open(t, options(path))
	must(t, os.MkdirAll(filepath.Join(path, "x"), 0o700))
	if err := f.Write(t.Context(), agent.Token{Raw: "a.b.c"}); err == nil {
		t.Error("no error")
	}
	if got := names(t, dir); !slices.Equal(got, []string{".token.zonemint-lock", "token"}) {
		t.Errorf("the folder has %q", got)
	}
}

func TestTheOwnerIsSet(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root gives files away")
	}
	o := options(filepath.Join(t.TempDir(), "token"))
	o.UID, o.GID = 12345, 23456
	must(t, open(t, o).Write(t.Context(), agent.Token{Raw: "a.b.c"}))
	info, err := os.Stat(o.Path)
	must(t, err)
	if s := info.Sys().(*syscall.Stat_t); s.Uid != 12345 || s.Gid != 23456 || info.Mode() != 0o600 {
		t.Errorf("the file is %d's and %d's, with mode %v", s.Uid, s.Gid, info.Mode())
	}
}

func TestATokenThatIsKeptGetsTheModeThatIsWanted(t *testing.T) {
	path := filepath.Join(t.TempDir(), "token")
	raw := zoneToken("a", time.Now(), life)
	must(t, os.WriteFile(path, []byte(raw), 0o600))
	must(t, os.Chmod(path, 0o666))
	before, err := os.Stat(path)
	must(t, err)
	open(t, options(path))
	info, err := os.Stat(path)
	must(t, err)
	if b, err := os.ReadFile(path); err != nil || string(b) != raw || info.Mode() != 0o600 {
		t.Errorf("mode %v, %q, %v", info.Mode(), b, err)
	}
	if os.SameFile(before, info) {
		t.Error("who has the old file open can go on writing to it")
	}
}

func TestATokenThatIsKeptGetsTheOwnerThatIsWanted(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root gives files away")
	}
	o := options(filepath.Join(t.TempDir(), "token"))
	must(t, os.WriteFile(o.Path, []byte(zoneToken("a", time.Now(), life)), 0o600))
	o.UID, o.GID = 12345, -1
	open(t, o)
	info, err := os.Stat(o.Path)
	must(t, err)
	if s := info.Sys().(*syscall.Stat_t); s.Uid != 12345 {
		t.Errorf("the file is %d's", s.Uid)
	}
}

func TestAPipeInThePlaceOfTheTokenHoldsNobodyUp(t *testing.T) {
	path := filepath.Join(t.TempDir(), "token")
	f := open(t, options(path))
	must(t, syscall.Mkfifo(path, 0o600))
	if _, err := f.Read(t.Context()); !errors.Is(err, agent.ErrForeign) {
		t.Error(err)
	}
}

// TestReadersSeeWholeTokens reads as fast as it can while tokens are replaced.
func TestReadersSeeWholeTokens(t *testing.T) {
	path := filepath.Join(t.TempDir(), "token")
	f := open(t, options(path))
	must(t, f.Write(t.Context(), agent.Token{Raw: zoneToken("0", time.Now(), life)}))
	stop, reads := make(chan struct{}), 0
	var readers sync.WaitGroup
	readers.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			b, err := os.ReadFile(path)
			if err == nil {
				_, _, err = expiryOf(string(b))
			}
			if err != nil {
				t.Error(err)
				return
			}
			reads++
		}
	})
	for i := range 500 {
		must(t, f.Write(t.Context(), agent.Token{Raw: zoneToken(strings.Repeat("i", 1+i%200), time.Now(), life)}))
	}
	close(stop)
	readers.Wait()
	if reads == 0 {
		t.Error("nothing was read")
	}
}
