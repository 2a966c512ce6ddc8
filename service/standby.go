package service

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/zonemint/zonemint/service/keyring"
	"github.com/zonemint/zonemint/signer"
)

// Standby is when the standby of a keyset signs instead of its active key. Every
// replica decides for itself, by what it sees of the backends.
type Standby struct {
	// Patience is how long the backend of the active key has for a signature before
	// a request goes on with the standby; 600ms, or half of what its caller has. It is
	// more than callers' hurry may be without saying anything about the backend; see
	// signer.Guard.
	Patience time.Duration
	// ReturnAfter is how long that backend has to have been well before its key
	// signs again; 30s. It doubles each time that it fails again soon, up to 10m.
	ReturnAfter time.Duration
	// Throttled is which part of the requests the backend may throttle, over a few
	// seconds, before the standby signs; 0.5.
	Throttled float64
}

func (c Standby) withDefaults() Standby {
	if c.Patience == 0 {
		c.Patience = 600 * time.Millisecond
	}
	if c.ReturnAfter == 0 {
		c.ReturnAfter = 30 * time.Second
	}
	if c.Throttled == 0 {
		c.Throttled = 0.5
	}
	return c
}

const (
	longestReturn = 10 * time.Minute
	// probeEvery is how often the backend that is stood in for is asked for a
	// signature that nobody gets.
	probeEvery = time.Second
	// judgedBy is the least number of requests within throttledFor that say something
	// about throttling.
	judgedBy     = 5
	judgedAfter  = time.Second
	throttledFor = 10 * time.Second
)

// stands is for which keysets the standby signs, in this replica.
type stands struct {
	mu       sync.Mutex
	byKeyset map[uuid.UUID]*stand
	switches []keysetSwitch // that are to be audited
	total    map[keysetTo]int64
}

// stand is what is remembered of one keyset that has a standby.
type stand struct {
	in   bool          // the standby signs
	rest time.Duration // how long the other backend has to be well
	well time.Time     // since when it is; zero if it is not
	left time.Time     // when the standby last stopped signing

	from             time.Time // when the counts begin
	asked, throttled int
}

func (s *stands) of(keyset uuid.UUID) *stand {
	if s.byKeyset == nil {
		s.byKeyset = map[uuid.UUID]*stand{}
	}
	if s.byKeyset[keyset] == nil {
		s.byKeyset[keyset] = &stand{}
	}
	return s.byKeyset[keyset]
}

func (s *stands) in(keyset uuid.UUID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	st, ok := s.byKeyset[keyset]
	return ok && st.in
}

// signingKey returns the key that signs for a keyset now, and how long its backend
// has for it, 0 if the keyset has no other key. While no backend is there to sign
// that is an error, so that no row is written for a token which nobody would sign.
// Keys that have failed for this request are not returned again.
func (s *Service) signingKey(ctx context.Context, ks *keyring.Keyset, failed exclusions) (*keyring.Active, time.Duration, error) {
	own, err := ks.Active()
	if err != nil {
		return nil, 0, err
	}
	standby := ks.Standby()
	if standby == nil {
		return own, 0, s.countRefusal(ctx, own, s.refusing(own))
	}
	ownErr, standbyErr := s.refusal(own, failed), s.refusal(standby, failed)
	switch {
	case ownErr != nil && !standsIn(ownErr):
		return nil, 0, ownErr // an incident, which nobody stands in for
	case standbyErr != nil:
		return own, 0, s.countRefusal(ctx, own, ownErr)
	case ownErr == nil && !s.stands.in(ks.ID):
		return own, s.patience(ctx), nil
	case ownErr != nil && !failed.has(own.ID): // the backend is down, not just slow for one request
		_ = s.countRefusal(ctx, own, ownErr)
		s.standIn(ks, "backend \""+own.Backend+"\" does not answer")
	}
	return standby, 0, nil
}

// patience is how long a backend has before the request goes on with another one: at
// most half of what the caller has, so that the other one has as much.
func (s *Service) patience(ctx context.Context) time.Duration {
	most := s.cfg.Standby.Patience
	if deadline, ok := ctx.Deadline(); ok {
		most = min(most, max(time.Until(deadline)/2, time.Millisecond))
	}
	return most
}

// refusal returns why a key is not worth asking for this request.
func (s *Service) refusal(key *keyring.Active, failed exclusions) error {
	if err := failed.of(key.ID); err != nil {
		return err
	}
	return s.refusing(key)
}

// countRefusal counts a signature that is not asked for.
func (s *Service) countRefusal(ctx context.Context, key *keyring.Active, err error) error {
	if err != nil {
		s.metrics.backendRefused(ctx, key.Backend, "sign")
	}
	return err
}

// standsIn says whether a failure is one that a standby is there for. What a backend
// denies or answers wrongly is an incident, and goes to the caller.
func standsIn(err error) bool {
	code := signer.CodeOf(err)
	return code == signer.Unavailable || code == signer.Throttled
}

// elsewhere is a signature that failed and that another key of the keyset may make.
type elsewhere struct {
	keyset, key uuid.UUID
	err         error
}

func (e *elsewhere) Error() string { return e.err.Error() }

func (e *elsewhere) Unwrap() error { return e.err }

// learn notes how a call to the backend of a keyset's key ended.
func (s *Service) learn(ks *keyring.Keyset, key *keyring.Active, err error) {
	if ks.Standby() == nil || key == ks.Standby() {
		return
	}
	if s.stands.count(ks.ID, throttles(err), s.cfg.Standby.Throttled) {
		s.standIn(ks, "backend \""+key.Backend+"\" throttles")
	}
}

// throttles says whether a failure shows that the backend bears no more. That the
// configuration allows no more is another matter: a keyset that asks for more than its
// share does not get a second one.
func throttles(err error) bool {
	return err != nil && signer.CodeOf(err) == signer.Throttled && signer.ByBackend(err)
}

// again says whether a request whose signature failed is to be begun again with
// another key: then what it returns is an *elsewhere.
func (s *Service) again(ctx context.Context, ks *keyring.Keyset, key *keyring.Active, err error) error {
	switch {
	case err == nil || ks.Standby() == nil || ctx.Err() != nil:
		return err
	case throttles(err) && s.stands.in(ks.ID), signer.CodeOf(err) == signer.Unavailable:
		return &elsewhere{ks.ID, key.ID, err}
	default:
		return err
	}
}

// count notes a call to the keyset's own backend, and says whether it throttles too
// many of them. It takes a moment to judge: those that are sent away are done first.
func (s *stands) count(keyset uuid.UUID, throttled bool, bound float64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	st, now := s.of(keyset), time.Now()
	if now.Sub(st.from) > throttledFor {
		st.from, st.asked, st.throttled = now, 0, 0
	}
	st.asked++
	if throttled {
		st.throttled++
	}
	return throttled && now.Sub(st.from) >= judgedAfter && st.throttled >= judgedBy && float64(st.throttled) >= bound*float64(st.asked)
}

// exclusions are the keys that have failed for a request, and how; one for each keyset,
// since there are two to choose from.
type exclusions map[uuid.UUID]*elsewhere // by keyset

func (x exclusions) has(key uuid.UUID) bool { return x.of(key) != nil }

func (x exclusions) of(key uuid.UUID) error {
	for _, e := range x {
		if e.key == key {
			return e.err
		}
	}
	return nil
}

// add says whether what ended with err is to be begun again, and notes the key that it
// failed with.
func (x *exclusions) add(err error) bool {
	e, ok := errors.AsType[*elsewhere](err)
	if !ok || (*x)[e.keyset] != nil {
		return false // or both have failed
	}
	if *x == nil {
		*x = exclusions{}
	}
	(*x)[e.keyset] = e
	return true
}

// addAll does so for the items of a batch, and returns the indexes of those that are
// to be begun again: many may have failed with the same key.
func (x *exclusions) addAll(results []result) (again []int) {
	var fresh exclusions
	for i := range results {
		e, ok := errors.AsType[*elsewhere](results[i].err)
		if ok && (*x)[e.keyset] == nil && (fresh.add(e) || fresh[e.keyset].key == e.key) {
			again = append(again, i)
		}
	}
	for keyset, e := range fresh {
		if *x == nil {
			*x = exclusions{}
		}
		(*x)[keyset] = e
	}
	return again
}

// hurried has the backend answer within patience of being asked, if there is one.
func hurried(ctx context.Context, patience time.Duration) context.Context {
	if patience == 0 {
		return ctx
	}
	return signer.WithPatience(ctx, patience)
}
