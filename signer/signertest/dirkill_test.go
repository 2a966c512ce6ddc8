package signertest_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/zonemint/zonemint/signer"
	"github.com/zonemint/zonemint/signer/signertest"
)

// childVariable names the directory in which a child of this test makes keys
// until it is killed.
const childVariable = "SIGNERTEST_DIR"

func TestMain(m *testing.M) {
	if path := os.Getenv(childVariable); path != "" {
		fmt.Fprintln(os.Stderr, createForever(path))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// createForever prints a line for each key that it knows to have made. It ends
// when it is killed or when nobody reads the lines any more.
func createForever(path string) error {
	d, err := signertest.OpenDir(path, signertest.DirOptions{Delay: time.Millisecond})
	if err != nil {
		return err
	}
	for {
		s := spec(signer.ES256)
		ref, err := signer.Create(context.Background(), d, s)
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintln(os.Stdout, s.Label, string(ref)); err != nil {
			return err
		}
	}
}

// TestDirKilled kills processes that make keys in one directory. What they had
// announced is there, each has made one more at most, and every key is whole.
func TestDirKilled(t *testing.T) {
	const children, each = 12, 8
	path := t.TempDir()
	d := openDir(t, path, signertest.DirOptions{})
	announced := make([][]string, children)
	var wg sync.WaitGroup
	for i := range children {
		wg.Go(func() { announced[i] = killAfter(t, path, each, time.Duration(i)*300*time.Microsecond) })
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		wg.Wait()
	}()
	for running := true; running; {
		if _, err := d.Keys(); err != nil { // readers never see half a key
			t.Error(err)
		}
		select {
		case <-done:
			running = false
		case <-time.After(time.Millisecond):
		}
	}
	checkKilled(t, d, announced)
}

// killAfter starts a process that makes keys, kills it a little after it has
// announced n of them, and returns all lines that it wrote.
func killAfter(t *testing.T, path string, n int, later time.Duration) (lines []string) {
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), childVariable+"="+path)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Error(err)
		return nil
	}
	defer cmd.Wait() //nolint:errcheck // it was killed
	for r := bufio.NewReader(out); ; {
		line, err := r.ReadString('\n')
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Error(err)
			break
		}
		lines = append(lines, strings.TrimSpace(line))
		if len(lines) == n {
			time.AfterFunc(later, func() { _ = cmd.Process.Kill() })
		}
	}
	if len(lines) < n {
		t.Errorf("a process ended by itself after %q", lines)
	}
	return lines
}

// checkKilled compares the keys that exist with what each process announced.
func checkKilled(t *testing.T, d *signertest.Dir, announced [][]string) {
	t.Helper()
	keys, err := d.Keys()
	if err != nil {
		t.Fatal(err)
	}
	exist := map[string]bool{}
	for _, k := range keys {
		exist[k.Label+" "+string(k.Ref)] = true
		s := signer.Spec{Keyset: k.Keyset, Serial: k.Serial, Label: k.Label, Algorithm: signer.ES256}
		key, err := signer.Open(t.Context(), d, s, k.Ref, nil)
		if err == nil {
			err = key.Probe(t.Context())
		}
		if err != nil {
			t.Errorf("key %s: %v", k.Ref, err)
		}
	}
	known := 0
	for _, lines := range announced {
		known += len(lines)
		for _, line := range lines {
			if !exist[line] {
				t.Errorf("%s was announced and is lost", line)
			}
		}
	}
	orphans := len(keys) - known
	if orphans < 0 || orphans > len(announced) {
		t.Errorf("%d keys, of which %d were announced by %d processes", len(keys), known, len(announced))
	}
	t.Logf("%d keys, %d orphans", len(keys), orphans)
}
