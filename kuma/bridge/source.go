package bridge

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"connectrpc.com/connect"
	"golang.org/x/sync/errgroup"

	pb "github.com/zonemint/zonemint/proto/zonemint/v1"
	v1 "github.com/zonemint/zonemint/proto/zonemint/v1/zonemintv1connect"
	"github.com/zonemint/zonemint/token"
)

const (
	// callTimeout bounds every call.
	callTimeout = 10 * time.Second
	// keyInterval is how often the keys of zone keysets are asked for, and
	// keysetInterval which keysets there are.
	keyInterval    = time.Second
	keysetInterval = 10 * time.Second
	// maxSilence is for how long a stream may be silent. The server gives a sign of
	// life every ten seconds.
	maxSilence = 30 * time.Second
	// staleAfter is how old the last word from a feed may be before nothing is taken
	// out of a list any more.
	staleAfter = time.Minute
	// checkLimit is how many entries a call may ask about.
	checkLimit = 1000
	// maxTokenID is the longest token ID that it may be asked about, in bytes.
	maxTokenID = 256
	// verdictLife is for how long an answer about an entry counts.
	verdictLife = 10 * time.Minute
)

// errSilence ends a stream on which the server says nothing.
var errSilence = errors.New("the server says nothing")

// source follows zonemint: its keysets, the keys of those whose tokens zones check,
// and all revocation feeds. What it has learned stays when zonemint is down.
type source struct {
	keys        v1.KeyServiceClient
	revocations v1.RevocationServiceClient
	wanted      func(keyset string) bool
	changed     func(keyset string, what change)
	log         *slog.Logger
	now         func() time.Time

	mu      sync.Mutex
	listed  bool // zonemint has said once which keysets there are
	keysets map[string]*keyset
}

// change says what there is to do for a keyset.
type change struct{ keys, revocations bool }

// keyset is what is known of a keyset. The source's lock guards it.
type keyset struct {
	name      string
	profile   token.Profile
	mesh      string
	consumers []string
	listed    bool // it was there when zonemint was asked last

	keys     []key // nil: nothing is known
	keysErr  error
	feedErr  error // why load has not read all of the feed
	feed     feed
	verdicts map[string]opinion
	asking   map[*question]bool
}

// question is one about entries that is under way.
type question struct {
	overtaken map[string]bool // entries of which the feed has said something since
}

// opinion is what zonemint said of an entry, and when.
type opinion struct {
	state pb.RevocationState
	at    time.Time
}

// run follows until ctx ends.
func (s *source) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	followed := map[string]bool{}
	g.Go(func() error {
		return s.again(ctx, "keysets", keysetInterval, func() error {
			if err := s.listKeysets(ctx); err != nil {
				return err
			}
			for _, k := range s.views() {
				if !followed[k.name] {
					followed[k.name] = true
					s.attend(ctx, g, k)
				}
			}
			return nil
		})
	})
	return g.Wait()
}

// attend follows one keyset from now on.
func (s *source) attend(ctx context.Context, g *errgroup.Group, k view) {
	g.Go(func() error {
		return s.again(ctx, k.name, 0, func() error { return s.follow(ctx, k.name, false) })
	})
	if k.profile == token.ProfileZone {
		g.Go(func() error {
			return s.again(ctx, k.name, keyInterval, func() error { return s.listKeys(ctx, k.name) })
		})
	}
}

// again does something over and over until ctx ends, with a pause in between, and
// with growing ones while it fails. What was good for a while has not failed again.
func (s *source) again(ctx context.Context, about string, pause time.Duration, do func() error) error {
	var failures backoff
	said := "" // what was logged, and need not be again
	for ctx.Err() == nil {
		began, wait := s.now(), pause
		err := do()
		if s.now().Sub(began) > lastPause {
			failures = 0
		}
		if again := failures.next(err); again > 0 {
			wait = again
		}
		switch {
		case ctx.Err() != nil:
		case err == nil && said != "":
			s.log.InfoContext(ctx, "zonemint answers again", slog.String("about", about))
			said = ""
		case err != nil && err.Error() != said:
			s.log.WarnContext(ctx, "zonemint does not answer as it should", slog.String("about", about), slog.Any("error", err))
			said = err.Error()
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
	}
	return nil
}

// load reads everything once. What cannot be read of one keyset is a problem of that
// one.
func (s *source) load(ctx context.Context) error {
	if err := s.listKeysets(ctx); err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(8)
	for _, k := range s.views() {
		g.Go(func() error {
			err := s.follow(ctx, k.name, true)
			s.mu.Lock()
			defer s.mu.Unlock()
			s.keysets[k.name].feedErr = err
			return ctx.Err()
		})
		if k.profile == token.ProfileZone {
			g.Go(func() error {
				_ = s.listKeys(ctx, k.name) // remembered
				return ctx.Err()
			})
		}
	}
	return g.Wait()
}

func (s *source) listKeysets(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	resp, err := s.keys.ListKeysets(ctx, &pb.ListKeysetsRequest{})
	if err != nil {
		return fmt.Errorf("list the keysets: %w", err)
	}
	for _, name := range s.takeKeysets(resp) {
		s.changed(name, change{keys: true})
	}
	return nil
}

// takeKeysets takes a list of keysets in, and returns those that are new or for whose
// keys somebody else waits now.
func (s *source) takeKeysets(resp *pb.ListKeysetsResponse) (changed []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.listed = true
	had := map[string]bool{}
	for _, k := range s.keysets {
		had[k.name], k.listed = k.listed, false
	}
	for _, k := range resp.GetKeysets() {
		profile := profileOf(k.GetProfile())
		if profile == "" || !s.wanted(k.GetName()) {
			continue
		}
		known := s.keysets[k.GetName()]
		if known == nil {
			known = &keyset{name: k.GetName(), verdicts: map[string]opinion{}, asking: map[*question]bool{}}
			s.keysets[known.name] = known
		}
		if !had[known.name] || !slices.Equal(known.consumers, k.GetConsumers()) {
			changed = append(changed, known.name)
		}
		_, inName, _ := strings.Cut(k.GetName(), "/") // servers that do not say the mesh go by the name
		known.profile, known.mesh, known.consumers, known.listed = profile, cmp.Or(k.GetMesh(), inName), k.GetConsumers(), true
	}
	return changed
}

// answered says whether zonemint has said which keysets there are.
func (s *source) answered() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.listed
}

func profileOf(p pb.Profile) token.Profile {
	switch p {
	case pb.Profile_PROFILE_ZONE:
		return token.ProfileZone
	case pb.Profile_PROFILE_DATAPLANE:
		return token.ProfileDataplane
	case pb.Profile_PROFILE_USER:
		return token.ProfileUser
	default:
		return ""
	}
}

func (s *source) listKeys(ctx context.Context, name string) error {
	call, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	resp, err := s.keys.ListSigningKeys(call, &pb.ListSigningKeysRequest{Keyset: name})
	if err != nil {
		err = fmt.Errorf("list the keys of keyset %s: %w", name, err)
	} else if len(resp.GetSigningKeys()) == 0 {
		err = fmt.Errorf("zonemint lists no keys of keyset %s: nothing is changed", name)
	}
	var keys []key
	for _, k := range resp.GetSigningKeys() {
		switch k.GetState() {
		case "published", "active", "retiring":
			keys = append(keys, key{name, k.GetKid(), k.GetPublicKey(), true})
		case "removed", "distrusted", "abandoned":
			keys = append(keys, key{name, k.GetKid(), k.GetPublicKey(), false})
		}
	}
	s.mu.Lock()
	k := s.keysets[name]
	k.keysErr = err
	moved := err == nil && !slices.Equal(keys, k.keys)
	if moved {
		k.keys = keys
	}
	s.mu.Unlock()
	if moved {
		s.changed(name, change{keys: true})
	}
	return err
}

// follow reads the feed of a keyset from where it was left, until the stream ends;
// or, if once is set, until there is no more.
func (s *source) follow(ctx context.Context, name string, once bool) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silence := time.AfterFunc(maxSilence, func() { cancel(errSilence) })
	defer silence.Stop()
	s.mu.Lock()
	req := &pb.WatchRevocationsRequest{Keyset: name, Epoch: s.keysets[name].feed.epoch, Since: s.keysets[name].feed.seq}
	s.mu.Unlock()
	stream, err := s.revocations.WatchRevocations(ctx, req)
	if err != nil {
		return fmt.Errorf("follow the revocations of keyset %s: %w", name, err)
	}
	defer func() { _ = stream.Close() }() // it is over, one way or another
	for stream.Receive() {
		silence.Reset(maxSilence)
		s.take(name, stream.Msg())
		if once && !stream.Msg().GetMore() {
			return nil
		}
	}
	if err := cmp.Or(errSilent(ctx), stream.Err()); err != nil {
		return fmt.Errorf("follow the revocations of keyset %s: %w", name, err)
	}
	return errors.New("the revocation feed of keyset " + name + " has ended")
}

func errSilent(ctx context.Context) error {
	if errors.Is(context.Cause(ctx), errSilence) {
		return errSilence
	}
	return nil
}

func (s *source) take(name string, page *pb.WatchRevocationsResponse) {
	s.mu.Lock()
	k := s.keysets[name]
	first := !k.feed.complete
	about := k.feed.take(page, s.now())
	for _, jti := range about {
		delete(k.verdicts, jti)
		for q := range k.asking {
			q.overtaken[jti] = true
		}
	}
	k.feed.forget(s.now(), func(jti string) bool {
		return k.verdicts[jti].state == pb.RevocationState_REVOCATION_STATE_EXPIRED
	})
	news := !page.GetMore() && (first || len(about) > 0 || page.GetReset_())
	s.mu.Unlock()
	if news {
		s.changed(name, change{revocations: true})
	}
}

// view is what is known of a keyset at one moment.
type view struct {
	name      string
	profile   token.Profile
	mesh      string
	consumers []string
	keys      []key
	problem   error // zonemint does not say what there is of it
	feedErr   error
	complete  bool
	age       time.Duration // of the last word from the feed, if it was complete once
}

// views returns what is known of the keysets, by name.
func (s *source) views() []view {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []view
	for _, name := range slices.Sorted(maps.Keys(s.keysets)) {
		k := s.keysets[name]
		v := view{
			name: name, profile: k.profile, mesh: k.mesh, consumers: k.consumers, keys: k.keys, problem: k.keysErr, feedErr: k.feedErr,
			complete: k.feed.complete, age: s.now().Sub(k.feed.heard),
		}
		if !k.listed {
			v.problem = fmt.Errorf("keyset %s: %w: nothing of it is changed any more", name, errMissing)
		}
		out = append(out, v)
	}
	return out
}

// revoked returns what the feeds of the keysets have, and whether entries may be
// taken out of a list by them: all were read to their ends, and not long ago.
func (s *source) revoked(keysets []string) (all []revoked, removable bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	removable = true
	for _, name := range keysets {
		k := s.keysets[name]
		all = append(all, k.feed.set.all()...)
		removable = removable && k.listed && k.feed.complete && s.now().Sub(k.feed.heard) <= staleAfter
	}
	return all, removable
}

// verdict returns what is known of an entry without asking. An entry is gone if one
// of the keysets says so, and none has a token of that ID that is alive.
func (s *source) verdict(keysets []string, jti string) verdict {
	s.mu.Lock()
	defer s.mu.Unlock()
	v := keep
	for _, name := range keysets {
		o, ok := s.keysets[name].verdicts[jti]
		if !ok || s.now().Sub(o.at) > verdictLife {
			return notAsked
		}
		switch o.state {
		case pb.RevocationState_REVOCATION_STATE_LIFTED, pb.RevocationState_REVOCATION_STATE_EXPIRED:
			v = gone
		case pb.RevocationState_REVOCATION_STATE_REVOKED, pb.RevocationState_REVOCATION_STATE_ISSUED:
			return keep
		default:
		}
	}
	return v
}

// check asks zonemint about entries.
func (s *source) check(ctx context.Context, keysets, jtis []string) error {
	// Nothing that zonemint has issued looks like the others.
	jtis = slices.DeleteFunc(jtis, func(jti string) bool { return len(jti) > maxTokenID || !utf8.ValidString(jti) })
	for _, name := range keysets {
		for part := range slices.Chunk(jtis, checkLimit) {
			if err := s.checkPart(ctx, name, part); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *source) checkPart(ctx context.Context, name string, jtis []string) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	asked, q := s.now(), s.ask(name)
	defer s.asked(name, q)
	resp, err := s.revocations.CheckRevocations(ctx, &pb.CheckRevocationsRequest{Keyset: name, Jtis: jtis})
	if err == nil && len(resp.GetStates()) != len(jtis) {
		err = connect.NewError(connect.CodeInternal, errors.New("the answer has another length than the question"))
	}
	if err != nil {
		return fmt.Errorf("ask zonemint about entries of keyset %s: %w", name, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	k := s.keysets[name]
	for i, state := range resp.GetStates() {
		if !q.overtaken[jtis[i]] {
			k.verdicts[jtis[i]] = opinion{state, asked}
		}
	}
	maps.DeleteFunc(k.verdicts, func(_ string, o opinion) bool { return asked.Sub(o.at) > verdictLife })
	return nil
}

// ask notes that a question about entries of a keyset is under way.
func (s *source) ask(name string) *question {
	s.mu.Lock()
	defer s.mu.Unlock()
	q := &question{overtaken: map[string]bool{}}
	s.keysets[name].asking[q] = true
	return q
}

// asked notes that a question is over.
func (s *source) asked(name string, q *question) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.keysets[name].asking, q)
}
