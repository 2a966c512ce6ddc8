package integration

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"

	pb "github.com/zonemint/zonemint/proto/zonemint/v1"
	"github.com/zonemint/zonemint/store/storetest/invariant"
)

// TestRotateUnderLoad rotates four keysets again and again while tokens of all of
// them are issued by three replicas, and verified at once by verifiers that use
// every JWK set for as long as they may. Now and then a replica is cut off from the
// database for several lengths of its lease. No token is ever refused that a
// verifier could have known, and no key signs beside another.
func TestRotateUnderLoad(t *testing.T) {
	keysets := []keyset{{"zone", "zone", "ES256"}, {"edge", "zone", "ES256"}, {"core", "zone", "ES256"}, {"lab", "zone", "ES256"}}
	f := newFleet(t, keysets...)
	tr := f.startTraffic(t, keysets...)
	each := rounds(3, 50)

	var rotators sync.WaitGroup
	took := make([][]time.Duration, len(keysets))
	for i, k := range keysets {
		rotators.Go(func() {
			for n := range each {
				d, err := f.rotate(context.WithoutCancel(t.Context()), k.name, n%2 == i%2)
				if err != nil {
					t.Errorf("rotation %d of %s: %v", n+1, k.name, err)
					return
				}
				took[i] = append(took[i], d)
			}
		})
	}
	over := make(chan struct{})
	go func() { rotators.Wait(); close(over) }()
	outages := f.playOutages(t, over)
	<-over
	time.Sleep(fleetLease)
	tr.stop(t)

	all := slices.Concat(took...)
	slices.Sort(all)
	if len(all) == 0 {
		t.Fatal("nothing was rotated")
	}
	t.Logf("%d rotations during %d outages; from the request to the activation %s to %s, half of them within %s",
		len(all), outages, all[0].Round(time.Millisecond), all[len(all)-1].Round(time.Millisecond), all[len(all)/2].Round(time.Millisecond))
	f.wantActivations(t, len(all)+len(keysets))
	f.stop(t)
}

// playOutages cuts one replica after the other off, but never the first, until a
// channel is closed. It returns how often.
func (f *fleet) playOutages(t *testing.T, over <-chan struct{}) (n int) {
	for ; ; n++ {
		select {
		case <-over:
			return n
		case <-time.After(between(500*time.Millisecond, 2*time.Second)):
		}
		r := f.members[1+n%2]
		mend := r.cutOff(n/2%2 == 0)
		time.Sleep(between(2*fleetLease, 4*fleetLease))
		mend()
		f.awaitReturn(t, r)
	}
}

// awaitReturn waits until a replica is as good as the others again, and so is
// everybody who asks nobody else.
func (f *fleet) awaitReturn(t *testing.T, r *member) {
	back := settles(15*time.Second, func() bool { return r.isReady(t.Context(), time.Second) })
	if back > 15*time.Second {
		t.Errorf("%s is not ready %s after it could reach the database again", r.name, back)
	}
	time.Sleep(time.Second) // longer than verifiers wait with a set of max-age 0
	r.caughtUp()
}

// rotate rotates a keyset, asking for it to be done within the call or as soon as
// may be. It returns how long that took from the first request on.
func (f *fleet) rotate(ctx context.Context, keyset string, now bool) (time.Duration, error) {
	const patience = 30 * time.Second
	before, err := f.active(ctx, keyset)
	if err != nil {
		return 0, err
	}
	start := time.Now()
	for asked := false; time.Since(start) < patience; time.Sleep(50 * time.Millisecond) {
		if !asked {
			if asked, err = f.askForRotation(ctx, keyset, now); err != nil {
				return 0, err
			}
		}
		switch after, err := f.active(ctx, keyset); {
		case err != nil:
			return 0, err
		case after.GetSerial() == before.GetSerial()+1:
			return time.Since(start), errors.Join(f.noneOf(ctx, faultsOfKeys), invariant.Check(ctx, f.db))
		case after.GetSerial() != before.GetSerial():
			return 0, fmt.Errorf("serial %d signs after serial %d", after.GetSerial(), before.GetSerial())
		case asked && now:
			return 0, fmt.Errorf("the call succeeded, and serial %d still signs", after.GetSerial())
		}
	}
	return 0, fmt.Errorf("serial %d still signs after %s", before.GetSerial(), patience)
}

// askForRotation says whether the rotation was taken on. A rotation that is to
// happen within the call is refused as long as verifiers may not know the key.
func (f *fleet) askForRotation(ctx context.Context, keyset string, now bool) (bool, error) {
	_, err := f.members[0].client.keys.RotateKeyset(ctx, &pb.RotateKeysetRequest{Keyset: keyset, Now: now, Reason: "a test"})
	switch code := codeOf(err); {
	case err == nil:
		return true, nil
	case code == connect.CodeAborted || now && code == connect.CodeFailedPrecondition:
		return false, nil
	default:
		return false, err
	}
}

// What must not be found in the database, whenever it is looked at.
const (
	faultsOfKeys = `
		SELECT s.name || ': ' || count(*) || ' keys are active'
		FROM keysets s JOIN signing_keys k ON k.keyset_id = s.id AND k.state = 'active'
		GROUP BY s.name, k.role HAVING count(*) <> 1
		UNION ALL
		SELECT s.name || ': serials ' || a.serial || ' and ' || b.serial || ' signed at the same time'
		FROM keysets s JOIN signing_keys a ON a.keyset_id = s.id JOIN signing_keys b ON b.keyset_id = s.id AND b.serial > a.serial
		WHERE a.activated_at < coalesce(b.retired_at, b.removed_at, 'infinity')
		  AND b.activated_at < coalesce(a.retired_at, a.removed_at, 'infinity')
		UNION ALL
		SELECT target || ' was activated ' || count(*) || ' times'
		FROM audit_events WHERE action = 'signing-key.active' GROUP BY target HAVING count(*) > 1`
	// The times of a key are those of when its transaction began, and a token's is
	// what its replica took for the database's.
	faultsOfTokens = `
		SELECT s.name || ': serial ' || k.serial || ' signed ' || count(*) || ' tokens when it was not active'
		FROM keysets s JOIN signing_keys k ON k.keyset_id = s.id JOIN ledger l ON l.keyset_id = s.id AND l.serial = k.serial
		WHERE k.activated_at IS NULL OR l.issued_at < k.activated_at - interval '2s'
		   OR l.issued_at > coalesce(k.retired_at, k.removed_at, 'infinity') + interval '10s'
		GROUP BY s.name, k.serial`
)

// noneOf wants a query to find nothing.
func (f *fleet) noneOf(ctx context.Context, query string) error {
	rows, err := f.db.QueryContext(ctx, query)
	if err != nil {
		return err
	}
	defer shut(rows)
	var faults []string
	for rows.Next() {
		var fault string
		if err := rows.Scan(&fault); err != nil {
			return err
		}
		faults = append(faults, fault)
	}
	if len(faults) > 0 {
		return fmt.Errorf("the database: %s", strings.Join(faults, "; "))
	}
	return rows.Err()
}

// wantActivations wants exactly that many keys to have begun to sign.
func (f *fleet) wantActivations(t *testing.T, want int) {
	t.Helper()
	err := errors.Join(f.noneOf(t.Context(), faultsOfKeys), f.noneOf(t.Context(), faultsOfTokens), invariant.Check(t.Context(), f.db))
	if err != nil {
		t.Error(err)
	}
	var audited, kept, removed int
	for query, n := range map[string]*int{
		"SELECT count(*) FROM audit_events WHERE action = 'signing-key.active'": &audited,
		"SELECT count(*) FROM signing_keys WHERE activated_at IS NOT NULL":      &kept,
		"SELECT count(*) FROM signing_keys WHERE state = 'removed'":             &removed,
	} {
		if err := f.db.QueryRowContext(t.Context(), query).Scan(n); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d keys began to sign, %d of them were removed meanwhile", audited, removed)
	if audited != want || kept != want {
		t.Errorf("%d activations in the audit, %d keys were activated, want %d", audited, kept, want)
	}
}
