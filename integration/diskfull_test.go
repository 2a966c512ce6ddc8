package integration

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect"
)

// TestDiskFull takes the last space from an embedded database. A token whose row
// has no room is not given out; keys need no room.
func TestDiskFull(t *testing.T) {
	dir := t.TempDir()
	mountSmall(t, dir, "16m")
	db := newSQLite(t, dir)
	in := installAdmin(t, db, settings{leaseTTL: shortLease})
	s := in.start(t)
	c := s.overConnect(t, in.admin)
	tokens := []issued{c.mustIssueSoon(t, "before")}
	ballast := filepath.Join(dir, "ballast")
	fill(t, ballast)

	l := startLoad(t, s, in.admin, 0)
	eventually(t, 10*time.Second, "nothing is issued any more", func() bool {
		before := l.received()
		time.Sleep(300 * time.Millisecond)
		return l.received() == before
	})
	time.Sleep(shortLease + time.Second) // what happens without a lease has to be seen, too
	s.jwks(t, "zone")
	if !s.running() {
		t.Fatal("the server has ended")
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	before := l.received()
	took := eventually(t, 10*time.Second, "issuing works again", func() bool { return l.received() > before+issuers })
	received, failures := l.stop()
	t.Logf("%d tokens received and %d requests refused; issuing works %s after there was space",
		len(received), len(failures), took.Round(time.Millisecond))
	if len(failures) == 0 {
		t.Error("there was space all along, so nothing was shown")
	}
	wantCodes(t, failures, connect.CodeResourceExhausted, connect.CodeUnavailable)
	tokens = append(tokens, received...)
	wantValid(t, s.keys(t, "zone"), sample(tokens, 200)...)
	s.stop(t)
	wantDistinct(t, tokens)
	db.wantRows(t, tokens)
	in.verifyLedger(t)
}

// fill writes a file until there is no space left.
func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer shut(f)
	if _, err := io.Copy(f, zeros{}); !errors.Is(err, syscall.ENOSPC) {
		t.Fatal("filling the disk:", err)
	}
}

// zeros is an endless file of zeros.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}
