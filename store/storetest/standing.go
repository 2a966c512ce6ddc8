package storetest

import (
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/zonemint/zonemint/store"
)

func testStandings(t *testing.T, h Harness) {
	w := newWorld(t, h)
	key := w.activeKey(t, "zone")
	other, _ := w.keyset(t, "user")
	live := rows(t, key, 3)
	dead := rowsAt(t, key, 2, time.Now().Add(-2*time.Hour), time.Hour)
	w.record(t, newChain(t), append(live, dead...))
	issued, revoked, lifted := live[0].JTI.String(), live[1].JTI.String(), live[2].JTI.String()
	w.revoke(t, key.KeysetID, revoked, lifted, "elsewhere", "aged")
	_, err := w.db.LiftRevocation(t.Context(), key.KeysetID, lifted, "a mistake", someone)
	noErr(t, err)
	w.age(t, key.KeysetID, "aged", 2*time.Hour)

	jtis := []string{
		"unheard-of", issued, revoked, lifted, "elsewhere", "aged", dead[0].JTI.String(), revoked,
		strings.ToUpper(issued), uuid.NewString(), "",
	}
	for keyset, want := range map[uuid.UUID][]store.Standing{
		key.KeysetID: {
			store.StandingUnknown, store.StandingIssued, store.StandingRevoked, store.StandingLifted, store.StandingRevoked,
			store.StandingExpired, store.StandingExpired, store.StandingRevoked,
			store.StandingUnknown, store.StandingUnknown, store.StandingUnknown,
		},
		other.ID: make([]store.Standing, len(jtis)),
	} {
		got, err := w.db.Standings(t.Context(), keyset, jtis)
		noErr(t, err)
		for i, jti := range jtis {
			if got[i] != want[i] {
				t.Errorf("%q: %d, want %d", jti, got[i], want[i])
			}
		}
	}
	_, err = w.db.Standings(t.Context(), key.KeysetID, []string{"a\x00b"})
	wantErr(t, err, store.ErrRejected)
}
