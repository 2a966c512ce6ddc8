package service

import (
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/zonemint/zonemint/service/caller"
	"github.com/zonemint/zonemint/service/keyring"
	"github.com/zonemint/zonemint/store"
)

// ledgerWish is what a request says of rows of the ledger, whatever it came by.
type ledgerWish struct {
	keyset        string
	serial        int32
	subject       string
	caller        string
	after, before *timestamppb.Timestamp
}

// ledgerFilter returns the filter of a wish, within the caller's bounds. A caller
// who is narrowed has to name a keyset: a zone of its own may be the name of
// somebody else's user or dataplane elsewhere.
func (s *Service) ledgerFilter(who caller.Caller, w ledgerWish) (f store.LedgerFilter, err error) {
	f = store.LedgerFilter{Serial: int(w.serial), Subject: w.subject, Subjects: who.Token.Zones, Caller: w.caller}
	if f.IssuedAfter, err = optionalTime("issued_after", w.after); err != nil {
		return f, err
	}
	if f.IssuedBefore, err = optionalTime("issued_before", w.before); err != nil {
		return f, err
	}
	switch {
	case w.keyset == "" && (who.NarrowedToKeysets() || who.NarrowedToZoneTokens()):
		return f, fmt.Errorf("%w: this API token is narrowed; name one of its keysets", caller.ErrForbidden)
	case w.keyset == "" && w.serial != 0:
		return f, &invalid{"serial", "needs the keyset: every keyset has its own"}
	case w.after != nil && w.before != nil && !f.IssuedAfter.Before(f.IssuedBefore):
		return f, &invalid{"issued_before", "must be later than issued_after"}
	}
	if w.subject != "" {
		if err := who.MayReach(w.subject); err != nil {
			return f, err
		}
	}
	if w.keyset == "" {
		return f, nil
	}
	ks, err := s.visible(who, w.keyset)
	if err != nil {
		return f, err
	}
	f.KeysetID = ks.ID
	return f, zonesOnly(who, ks)
}

// visible returns a keyset, if the caller may see it.
func (s *Service) visible(who caller.Caller, name string) (*keyring.Keyset, error) {
	if err := who.MaySee(name); err != nil {
		return nil, err
	}
	return s.ring.Load().Keyset(name)
}

// zonesOnly keeps callers who are narrowed to zones or scopes away from tokens that
// are not for zones.
func zonesOnly(who caller.Caller, ks *keyring.Keyset) error {
	if who.NarrowedToZoneTokens() && ks.Profile != store.ProfileZone {
		return fmt.Errorf("%w: this API token is for zones, keyset %q is for %s tokens", caller.ErrForbidden, ks.Name, ks.Profile)
	}
	return nil
}

// optionalTime returns the time of an optional field, the zero time if it is absent.
func optionalTime(field string, t *timestamppb.Timestamp) (time.Time, error) {
	if t == nil {
		return time.Time{}, nil
	}
	if err := t.CheckValid(); err != nil {
		return time.Time{}, &invalid{field, "is not a time between the years 1 and 9999"}
	}
	return t.AsTime(), nil
}
