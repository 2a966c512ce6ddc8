package store

import (
	"bytes"
	"testing"
	"time"

	"github.com/google/uuid"
)

func TestFirstJTI(t *testing.T) {
	for _, at := range []time.Time{
		time.UnixMilli(0), time.UnixMilli(1), time.UnixMilli(0x0123456789ab), time.UnixMilli(1<<48 - 1),
		time.Date(2026, 3, 1, 12, 0, 0, 123_000_000, time.UTC),
	} {
		first := FirstJTI(at)
		if got := jtiTime(first); !got.Equal(at) {
			t.Errorf("the first JTI of %s has the time %s", at, got)
		}
		if at.UnixMilli() == 1<<48-1 {
			continue
		}
		if next := FirstJTI(at.Add(time.Millisecond)); bytes.Compare(first[:], next[:]) >= 0 {
			t.Errorf("the first JTI of %s is %s, and that of the next millisecond %s", at, first, next)
		}
	}
}

// TestJTIOfTheLibrary: rows are found by the time in their jti, which the UUID
// library puts there.
func TestJTIOfTheLibrary(t *testing.T) {
	before := time.Now().Truncate(time.Millisecond)
	id, err := uuid.NewV7()
	if err != nil {
		t.Fatal(err)
	}
	after := time.Now()
	if at := jtiTime(id); at.Before(before) || at.After(after) {
		t.Errorf("a UUIDv7 made between %s and %s has the time %s", before, after, at)
	}
	first, next := FirstJTI(jtiTime(id)), FirstJTI(jtiTime(id).Add(time.Millisecond))
	if bytes.Compare(first[:], id[:]) > 0 || bytes.Compare(id[:], next[:]) >= 0 {
		t.Errorf("%s is not between %s and %s", id, first, next)
	}
}
