package service

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/zonemint/zonemint/proto/zonemint/v1"
	"github.com/zonemint/zonemint/service/rotation"
	"github.com/zonemint/zonemint/signer"
	"github.com/zonemint/zonemint/store"
)

// held is a step that must not be taken now. Its text is meant for the caller: it
// says what is missing and how to go on.
type held struct {
	text string
	// moments says that it is only replicas that have to load the key ring.
	moments bool
}

func (e *held) Error() string { return e.text }

// missing is something that was asked for and does not exist. Its text is meant for
// the caller.
type missing struct{ text string }

func (e *missing) Error() string { return e.text }

// noSerial says that a serial does not exist, if that is what err says.
func noSerial(keyset string, serial int, err error) error {
	if errors.Is(err, store.ErrNotFound) {
		return &missing{fmt.Sprintf("keyset %q has no serial %d", keyset, serial)}
	}
	return err
}

// notNow returns why a step may not be taken now, nil if it may.
func notNow(l *store.Lifecycle, s *rotation.Step) error {
	var why []string
	for _, h := range s.Held {
		why = append(why, h.Text)
	}
	if l.Now.Before(s.At) {
		why = append(why, "verifiers may hold JWK sets without it until "+s.At.UTC().Format(time.RFC3339))
	}
	if len(why) == 0 {
		return nil
	}
	lagging := !slices.ContainsFunc(s.Held, func(h rotation.Hold) bool { return !h.Replica }) && !l.Now.Before(s.At)
	text := fmt.Sprintf("serial %d of keyset %q cannot sign yet: %s; wait, or use force", s.Serial, l.Keyset.Name, strings.Join(why, "; "))
	return &held{text: text, moments: lagging}
}

// patience is how long a call waits for replicas to load the key ring, which
// takes them moments.
const patience = 5 * time.Second

// change runs a change of keys for a caller. With a dry run nothing is written.
// While replicas are catching up with the ring it tries again for a while.
func (s keyService) change(ctx context.Context, keyset store.Keyset, dryRun bool, decide func(*store.Lifecycle) (store.Change, error)) (l store.Lifecycle, err error) {
	for deadline := time.Now().Add(patience); ; {
		l, err = s.store.ChangeKeys(ctx, keyset.ID, actorOf(ctx), func(l *store.Lifecycle) (store.Change, error) {
			c, err := decide(l)
			if dryRun {
				return store.Change{}, err
			}
			return c, err
		})
		if why, ok := errors.AsType[*held](err); !ok || !why.moments || time.Now().After(deadline) {
			break
		}
		if sleep(ctx, 50*time.Millisecond) != nil {
			break
		}
	}
	if err != nil || dryRun {
		return l, err
	}
	s.nudge()
	return l, s.ring.Refresh(ctx)
}

func (s keyService) RotateKeyset(ctx context.Context, req *pb.RotateKeysetRequest) (*pb.RotateKeysetResponse, error) {
	ks, err := s.managed(ctx, req.GetKeyset())
	if err != nil {
		return nil, err
	}
	thumbprint := ""
	if req.GetAdopt() != "" {
		if thumbprint, err = s.checkAdoption(ctx, ks, req); err != nil {
			return nil, err
		}
	}
	p, err := s.newPlan(ctx, ks)
	if err != nil {
		return nil, err
	}
	l, err := s.change(ctx, ks, req.GetDryRun(), func(l *store.Lifecycle) (store.Change, error) {
		c, err := s.rotate(l, req, thumbprint)
		if err == nil {
			p.rotation(l, c)
		}
		return c, err
	})
	if thumbprint != "" && errors.Is(err, store.ErrExists) {
		return nil, &invalid{"adopt", "it is a key of a keyset already"} // since a moment ago
	}
	if err != nil {
		return nil, err
	}
	return &pb.RotateKeysetResponse{Steps: p.steps, SigningKeys: keysToProto(ks.Name, l.Keys)}, nil
}

// rotate asks for the successor to take over, or lets it do so now.
func (s keyService) rotate(l *store.Lifecycle, req *pb.RotateKeysetRequest, thumbprint string) (store.Change, error) {
	c := store.Change{Action: "keyset.rotate", Detail: map[string]any{
		"now": req.GetNow(), "backend": req.GetBackend(), "force": req.GetForce(), "reason": req.GetReason(),
	}}
	if from := int(req.GetFromSerial()); from != 0 {
		if active, ok := l.Active(store.RolePrimary); !ok || active.Serial != from {
			return c, &held{text: fmt.Sprintf("serial %d of keyset %q does not sign; see `zonemint key list --keyset %s`", from, l.Keyset.Name, l.Keyset.Name)}
		}
	}
	if moves(l.Keyset, req) || req.GetAdopt() != "" {
		return s.relocate(l, c, req, thumbprint)
	}
	next, ok := rotation.Successor(l, store.RolePrimary)
	switch {
	case !ok && req.GetNow():
		return c, &held{text: fmt.Sprintf("keyset %q has no published successor yet; see `zonemint key list --keyset %s`", l.Keyset.Name, l.Keyset.Name)}
	case !ok:
		c.New = []store.NewKey{{Role: store.RolePrimary, Label: signer.NewLabel(), ActivateAfter: l.Now, Reason: reasonOr(req.GetReason(), "rotation")}}
		return c, nil
	case !req.GetNow():
		if next.ActivateAfter.IsZero() || next.ActivateAfter.After(l.Now) {
			c.Moves = []store.Move{{Serial: next.Serial, ActivateAfter: l.Now, Reason: reasonOr(req.GetReason(), "rotation")}}
		}
		return c, nil
	}
	t, err := s.takeover(l, next, req.GetForce(), reasonOr(req.GetReason(), "rotation"))
	c.Moves, c.New = t.Moves, t.New
	return c, err
}

// moves says whether a rotation is to another backend.
func moves(ks store.Keyset, req *pb.RotateKeysetRequest) bool {
	return req.GetBackend() != "" && req.GetBackend() != ks.Backend
}

// relocate completes the change of a rotation to a key that none of the published
// ones can be: in another backend, or one that somebody else has made.
func (s keyService) relocate(l *store.Lifecycle, c store.Change, req *pb.RotateKeysetRequest, thumbprint string) (store.Change, error) {
	moved, reason := l.Keyset, "adopted"
	if moves(l.Keyset, req) {
		moved.Backend, reason = req.GetBackend(), "moved to backend "+req.GetBackend()
		c.Keyset = &moved
	}
	if req.GetNow() {
		return c, &held{text: fmt.Sprintf("keyset %q has no published key in backend %q yet: ask without now, and the rotation follows by itself", moved.Name, moved.Backend)}
	}
	if err := s.checkBackend(moved); err != nil {
		return c, err
	}
	c.New = []store.NewKey{{
		Role: store.RolePrimary, Label: signer.NewLabel(), ActivateAfter: l.Now, Adopt: req.GetAdopt(), Thumbprint: thumbprint,
		Reason: reasonOr(req.GetReason(), reason),
	}}
	return c, nil
}

// takeover lets a key sign now, if every verifier knows it, or by force.
func (s keyService) takeover(l *store.Lifecycle, k store.SigningKey, force bool, reason string) (store.Change, error) {
	if k.State == store.StateCreating {
		return store.Change{}, &held{text: fmt.Sprintf("serial %d of keyset %q is still being made", k.Serial, l.Keyset.Name)}
	}
	step := rotation.Activation(l, s.rules(), k)
	if err := notNow(l, &step); err != nil && !force {
		return store.Change{}, err
	}
	return rotation.Takeover(l, k.Serial, reason, signer.NewLabel), nil
}

func reasonOr(reason, usual string) string {
	if reason == "" {
		return usual
	}
	return reason
}

func (s keyService) ActivateSigningKey(ctx context.Context, req *pb.ActivateSigningKeyRequest) (*pb.ActivateSigningKeyResponse, error) {
	ks, err := s.managed(ctx, req.GetKeyset())
	if err != nil {
		return nil, err
	}
	p, err := s.newPlan(ctx, ks)
	if err != nil {
		return nil, err
	}
	serial := int(req.GetSerial())
	_, err = s.change(ctx, ks, req.GetDryRun(), func(l *store.Lifecycle) (store.Change, error) {
		k, err := liveKey(l, serial)
		switch {
		case err != nil:
			return store.Change{}, err
		case k.State == store.StateActive:
			return store.Change{}, nil // it does sign: a repeated call changes nothing
		case k.Imported:
			return store.Change{}, &held{text: fmt.Sprintf("serial %d was imported and only verifies", serial)}
		}
		c, err := s.takeover(l, k, req.GetForce(), reasonOr(req.GetReason(), "activated"))
		if err == nil {
			p.moves(l, c)
		}
		return c, err
	})
	if err != nil {
		return nil, err
	}
	k, err := s.store.SigningKey(ctx, ks.ID, serial)
	return &pb.ActivateSigningKeyResponse{Steps: p.steps, SigningKey: keyToProto(ks.Name, k)}, err
}

// liveKey returns a key that has not ended.
func liveKey(l *store.Lifecycle, serial int) (store.SigningKey, error) {
	k, ok := l.Key(serial)
	if !ok && serial > l.Series.LastSerial {
		return k, noSerial(l.Keyset.Name, serial, store.ErrNotFound)
	}
	if !ok {
		return k, &held{text: fmt.Sprintf("serial %d of keyset %q has ended", serial, l.Keyset.Name)}
	}
	return k, nil
}

func (s keyService) RetireSigningKey(ctx context.Context, req *pb.RetireSigningKeyRequest) (*pb.RetireSigningKeyResponse, error) {
	ks, err := s.managed(ctx, req.GetKeyset())
	if err != nil {
		return nil, err
	}
	p, err := s.newPlan(ctx, ks)
	if err != nil {
		return nil, err
	}
	serial := int(req.GetSerial())
	_, err = s.change(ctx, ks, req.GetDryRun(), func(l *store.Lifecycle) (store.Change, error) {
		k, err := liveKey(l, serial)
		if err != nil {
			return store.Change{}, err
		}
		c, err := retire(l, k, p.live[serial], req)
		if err == nil {
			p.moves(l, c)
		}
		return c, err
	})
	if err != nil {
		return nil, err
	}
	k, err := s.store.SigningKey(ctx, ks.ID, serial)
	return &pb.RetireSigningKeyResponse{Steps: p.steps, SigningKey: keyToProto(ks.Name, k)}, err
}

// breaks says which tokens break when a key is not trusted any more, "" if none do.
// The key's row decides; how many they are was counted before, and may have grown.
func breaks(l *store.Lifecycle, k store.SigningKey, live int64) string {
	switch {
	case k.Imported && (k.TrustedUntil.IsZero() || k.TrustedUntil.After(l.Now)):
		return fmt.Sprintf("tokens of another issuer, signed by serial %d and unknown here,", k.Serial)
	case live > 0:
		return fmt.Sprintf("%d live tokens of serial %d", live, k.Serial)
	case k.LastExpiry.After(l.Now):
		return fmt.Sprintf("tokens of serial %d, the last of which expires by %s,", k.Serial, k.LastExpiry.UTC().Format(time.RFC3339))
	default:
		return ""
	}
}

// retire ends what a key is doing.
func retire(l *store.Lifecycle, k store.SigningKey, live int64, req *pb.RetireSigningKeyRequest) (store.Change, error) {
	m := store.Move{Serial: k.Serial, Reason: reasonOr(req.GetReason(), "retired")}
	switch k.State {
	case store.StateCreating:
		m.To = store.StateFailed
	case store.StatePublished:
		m.To = store.StateAbandoned
	case store.StateActive:
		m.To = store.StateRetiring
		if !req.GetForce() {
			return store.Change{}, &held{text: fmt.Sprintf(
				"serial %d signs: keyset %q would issue nothing until its successor may; `zonemint key rotate %s --now` changes the two at once, force retires it all the same",
				k.Serial, l.Keyset.Name, l.Keyset.Name)}
		}
	default:
		m.To = store.StateRemoved
		if what := breaks(l, k, live); what != "" && !req.GetForce() {
			return store.Change{}, &held{text: what + " would break; it is removed by itself when they have expired, or now with force"}
		}
	}
	return store.Change{Moves: []store.Move{m}}, nil
}

func (s keyService) DistrustSigningKey(ctx context.Context, req *pb.DistrustSigningKeyRequest) (*pb.DistrustSigningKeyResponse, error) {
	ks, err := s.managed(ctx, req.GetKeyset())
	if err != nil {
		return nil, err
	}
	p, err := s.newPlan(ctx, ks)
	if err != nil {
		return nil, err
	}
	serial := int(req.GetSerial())
	l, err := s.change(ctx, ks, req.GetDryRun(), func(l *store.Lifecycle) (store.Change, error) {
		k, err := liveKey(l, serial)
		if err != nil {
			return store.Change{}, err
		}
		c, err := s.distrust(l, k, p.live[serial], req)
		if err == nil {
			p.moves(l, c)
		}
		return c, err
	})
	if err != nil {
		return nil, err
	}
	k, err := s.store.SigningKey(ctx, ks.ID, serial)
	return &pb.DistrustSigningKeyResponse{
		Steps: p.steps, SigningKey: keyToProto(ks.Name, k), BrokenTokens: p.live[serial],
		BelievedFor: durationpb.New(rotation.BelievedFor(&l, s.rules())),
	}, err
}

// distrust takes a key out of the JWK set. If it was the one that signs, its
// successor takes over in the same transaction, or as soon as verifiers know it.
func (s keyService) distrust(l *store.Lifecycle, k store.SigningKey, live int64, req *pb.DistrustSigningKeyRequest) (store.Change, error) {
	if k.State == store.StateCreating {
		return store.Change{}, &held{text: fmt.Sprintf("serial %d is still being made: `zonemint key retire %s %d` gives it up", k.Serial, l.Keyset.Name, k.Serial)}
	}
	if what := breaks(l, k, live); what != "" && !req.GetForce() && !req.GetDryRun() {
		return store.Change{}, &held{text: fmt.Sprintf(
			"%s would be refused within %s; repeat with force", what, rotation.BelievedFor(l, s.rules()))}
	}
	c := store.Change{Moves: []store.Move{{Serial: k.Serial, To: store.StateDistrusted, Reason: reasonOr(req.GetReason(), "distrusted")}}}
	// Somebody has to see to it that verifiers of a manual keyset have the key, and
	// where a row of the keyset is damaged nothing but taking away is safe.
	byHand := l.Keyset.Distribution == store.DistributionManual && !req.GetForce()
	if k.State != store.StateActive || byHand || len(l.Faults) > 0 {
		return c, nil
	}
	next, ok := rotation.Successor(l, k.Role)
	if !ok || next.State != store.StatePublished {
		return c, nil // as soon as there is one, the rotation lets it sign
	}
	step := rotation.Activation(l, s.rules(), next)
	if notNow(l, &step) == nil || req.GetForce() {
		t := rotation.Takeover(l, next.Serial, fmt.Sprintf("serial %d is distrusted", k.Serial), signer.NewLabel)
		// Not retiring first: the key is distrusted, and says so.
		c.Moves, c.New = append(c.Moves, t.Moves[1:]...), t.New
	}
	return c, nil
}
