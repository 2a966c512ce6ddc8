package service

import (
	"context"
	"fmt"
	"slices"
	"time"

	pb "github.com/zonemint/zonemint/proto/zonemint/v1"
	"github.com/zonemint/zonemint/service/rotation"
	"github.com/zonemint/zonemint/store"
)

// plan says what a change does to the keys of a keyset, and what follows from it
// by itself.
type plan struct {
	rules  rotation.Rules
	keyset string
	live   map[int]int64 // live tokens by serial
	steps  []*pb.PlannedStep
}

func (s *Service) newPlan(ctx context.Context, ks store.Keyset) (*plan, error) {
	live, err := s.store.LiveTokens(ctx, ks.ID)
	return &plan{rules: s.rules(), keyset: ks.Name, live: live}, err
}

// moves plans what a change does at once.
func (p *plan) moves(l *store.Lifecycle, c store.Change) {
	p.steps = nil
	for _, m := range c.Moves {
		k, _ := l.Key(m.Serial)
		if m.To == "" {
			continue
		}
		step := &pb.PlannedStep{Action: actionOf(m.To), Serial: int32(m.Serial), Kid: k.KID, At: timestamp(l.Now), Reason: m.Reason}
		if m.To == store.StateDistrusted || m.To == store.StateRemoved {
			step.BrokenTokens = p.live[m.Serial]
		}
		if m.To == store.StateActive {
			step.Evidence = rotation.Activation(l, p.rules, k).Evidence
		}
		p.add(step)
	}
	for i, nk := range c.New {
		p.add(&pb.PlannedStep{Action: "make", Serial: int32(l.Series.LastSerial + 1 + i), At: timestamp(l.Now), Reason: nk.Reason})
	}
}

// rotation plans what a change does at once and what follows from it.
func (p *plan) rotation(l *store.Lifecycle, c store.Change) {
	p.moves(l, c)
	after := rotation.Preview(l, c)
	for _, s := range rotation.Steps(&after, p.rules) {
		if s.Kind == rotation.Make && s.Serial > l.Series.LastSerial {
			continue // its beginning is in the plan already
		}
		p.future(&after, s)
	}
	p.unmade(&after)
}

// future adds a step that the rotation takes by itself.
func (p *plan) future(l *store.Lifecycle, s rotation.Step) {
	switch s.Kind {
	case rotation.Begin, rotation.Make:
		p.add(&pb.PlannedStep{Action: "make", Serial: int32(s.Serial), At: timestamp(s.At), Reason: s.Reason})
	case rotation.Activate:
		p.activation(l, s)
	case rotation.Abandon, rotation.Remove, rotation.Retire, rotation.GiveUp:
		p.add(p.stepOf(s))
	}
}

// activation adds the steps that belong together when a key takes over.
func (p *plan) activation(l *store.Lifecycle, s rotation.Step) {
	k, _ := l.Key(s.Serial)
	active, signing := l.Active(k.Role)
	if signing {
		retire := p.stepOf(s)
		retire.Action, retire.Serial, retire.Kid, retire.Evidence = "retire", int32(active.Serial), active.KID, nil
		retire.Reason = fmt.Sprintf("serial %d takes its place; what it has signed goes on verifying", s.Serial)
		p.add(retire)
	}
	p.add(p.stepOf(s))
	if next, ok := rotation.Heir(l, k); !ok {
		p.add(&pb.PlannedStep{
			Action: "make", Serial: int32(next), At: timestamp(s.At), Reason: "every keyset has a published successor",
		})
	}
	if signing {
		p.add(&pb.PlannedStep{
			Action: "remove", Serial: int32(active.Serial), Kid: active.KID,
			At:         timestamp(latest(active.LastExpiry, s.At).Add(p.rules.Skew)),
			Reason:     "by then its last token will have expired",
			WaitingFor: []string{"the expiry of its last token, which may yet be issued"},
		})
	}
}

// unmade adds the activation of a successor that is yet to be made: nobody can
// tell when that will be.
func (p *plan) unmade(l *store.Lifecycle) {
	next, ok := rotation.Successor(l, store.RolePrimary)
	if ok && next.State == store.StateCreating && !next.ActivateAfter.IsZero() {
		p.add(&pb.PlannedStep{
			Action: "activate", Serial: int32(next.Serial), Reason: "a rotation was asked for",
			WaitingFor: []string{"the key to be made and published", fmt.Sprintf("%s after that for caches", rotation.BelievedFor(l, p.rules))},
		})
	}
}

func (p *plan) stepOf(s rotation.Step) *pb.PlannedStep {
	step := &pb.PlannedStep{
		Action: string(s.Kind), Serial: int32(s.Serial), Kid: s.KID, At: timestamp(s.At), Reason: s.Reason, Evidence: s.Evidence,
	}
	for _, h := range s.Held {
		step.WaitingFor = append(step.WaitingFor, h.Text)
	}
	return step
}

func (p *plan) add(s *pb.PlannedStep) {
	s.Keyset, s.LiveTokens = p.keyset, p.live[int(s.GetSerial())]
	p.steps = append(p.steps, s)
}

func actionOf(to store.State) string {
	switch to {
	case store.StateActive:
		return "activate"
	case store.StateRetiring:
		return "retire"
	case store.StateRemoved:
		return "remove"
	case store.StateDistrusted:
		return "distrust"
	case store.StatePublished:
		return "publish"
	default:
		return "abandon"
	}
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

func (s keyService) GetSigningKey(ctx context.Context, req *pb.GetSigningKeyRequest) (*pb.GetSigningKeyResponse, error) {
	ks, err := s.visible(ctx, req.GetKeyset())
	if err != nil {
		return nil, err
	}
	k, err := s.store.SigningKey(ctx, ks.ID, int(req.GetSerial()))
	if err != nil {
		return nil, noSerial(ks.Name, int(req.GetSerial()), err)
	}
	p, err := s.newPlan(ctx, ks)
	if err != nil {
		return nil, err
	}
	l, err := s.lifecycle(ctx, ks)
	if err != nil {
		return nil, err
	}
	for _, step := range rotation.Steps(&l, s.rules()) {
		p.future(&l, step)
	}
	p.unmade(&l)
	p.steps = slices.DeleteFunc(p.steps, func(s *pb.PlannedStep) bool { return s.GetSerial() != req.GetSerial() })
	return &pb.GetSigningKeyResponse{
		SigningKey: keyToProto(ks.Name, k), LiveTokens: p.live[k.Serial], Steps: p.steps,
		Acknowledgements: acknowledgements(&l, k), Attestation: k.Attestation,
	}, nil
}

// lifecycle returns what decides about the keys of a keyset.
func (s *Service) lifecycle(ctx context.Context, ks store.Keyset) (store.Lifecycle, error) {
	all, faults, err := s.store.Lifecycles(ctx)
	if err != nil {
		return store.Lifecycle{}, err
	}
	for _, l := range all {
		if l.Keyset.ID == ks.ID {
			faults = l.Faults
			if len(faults) == 0 {
				return l, nil
			}
		}
	}
	return store.Lifecycle{}, fmt.Errorf("keyset %s: %w %v", ks.Name, store.ErrTampered, faults)
}

// acknowledgements returns what replicas and consumers say of a key.
func acknowledgements(l *store.Lifecycle, k store.SigningKey) []*pb.Acknowledgement {
	var all []*pb.Acknowledgement
	for _, r := range l.Replicas {
		if r.LeaseUntil.After(l.Now) {
			all = append(all, &pb.Acknowledgement{
				Consumer: fmt.Sprintf("%s (%.8s)", r.Name, r.ID), Replica: true,
				HasKey: r.Generation >= l.Generation && k.State.Verifies(), At: timestamp(r.AckedAt),
			})
		}
	}
	for _, name := range l.Keyset.Policy.Consumers {
		at, ok := rotation.Acknowledged(l, name, k.KID)
		all = append(all, &pb.Acknowledgement{Consumer: name, HasKey: ok, At: timestamp(at)})
	}
	return all
}
