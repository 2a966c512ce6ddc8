package service

import (
	"context"
	"errors"
	"fmt"

	pb "github.com/zonemint/zonemint/proto/zonemint/v1"
	"github.com/zonemint/zonemint/service/legacy"
	"github.com/zonemint/zonemint/store"
)

// legacyKeyService implements zonemint.v1.LegacyKeyService.
type legacyKeyService struct{ *Service }

// maxLegacySerial is the last one that the names of GlobalSecrets have room for.
const maxLegacySerial = 9999

// readable returns a kind that is on, for a caller that may look at it.
func (s legacyKeyService) readable(ctx context.Context, k pb.LegacyKind) (legacy.Kind, error) {
	kind := legacyKindFromProto(k)
	if !s.cfg.Legacy.on(kind) {
		return kind, legacyOff(kind)
	}
	return kind, callerOf(ctx).MayUseLegacy()
}

// managed is the same for whoever changes keys: a key is for all zones.
func (s legacyKeyService) managed(ctx context.Context, k pb.LegacyKind) (legacy.Kind, error) {
	kind, err := s.readable(ctx, k)
	if err != nil {
		return kind, err
	}
	return kind, callerOf(ctx).Unbounded()
}

func (s legacyKeyService) act(ctx context.Context, kind legacy.Kind, decide func(*store.LegacyKeys) (store.LegacyAct, error)) (store.LegacyKeys, error) {
	return s.store.ActOnLegacyKeys(ctx, store.LegacyKind(kind), actorOf(ctx), decide)
}

func (s legacyKeyService) CreateLegacyKey(ctx context.Context, req *pb.CreateLegacyKeyRequest) (*pb.CreateLegacyKeyResponse, error) {
	kind, err := s.managed(ctx, req.GetKind())
	if err != nil {
		return nil, err
	}
	n, err := s.newLegacySecret(ctx, req.GetSecret())
	if err != nil {
		return nil, err
	}
	l, err := s.act(ctx, kind, func(l *store.LegacyKeys) (store.LegacyAct, error) {
		state, action := store.LegacyActive, "legacy-key.create"
		if n.imported {
			action = "legacy-key.import"
		}
		if active, ok := l.Active(); ok {
			if !n.imported {
				return store.LegacyAct{}, &held{text: fmt.Sprintf(
					"serial %d issues %s tokens already; `zonemint legacy key rotate %s` puts another one in its place", active.Serial, kind, kind)}
			}
			state = store.LegacyRetiring
		}
		return s.addLegacy(kind, l, n, store.LegacyAct{
			Action: action, Serial: int(req.GetSerial()), Detail: map[string]any{"state": state, "reason": req.GetReason()},
		}, state)
	})
	if err != nil {
		return nil, n.about(err)
	}
	return &pb.CreateLegacyKeyResponse{Key: legacyKeyWith(l, n.serial)}, nil
}

func (s legacyKeyService) RotateLegacyKey(ctx context.Context, req *pb.RotateLegacyKeyRequest) (*pb.RotateLegacyKeyResponse, error) {
	kind, err := s.managed(ctx, req.GetKind())
	if err != nil {
		return nil, err
	}
	n, err := s.newLegacySecret(ctx, req.GetSecret())
	if err != nil {
		return nil, err
	}
	l, err := s.act(ctx, kind, func(l *store.LegacyKeys) (store.LegacyAct, error) {
		active, err := issuingKey(kind, l)
		switch from := int(req.GetFromSerial()); {
		case err != nil:
			return store.LegacyAct{}, err
		case from != 0 && from != active.Serial:
			return store.LegacyAct{}, &held{text: fmt.Sprintf("serial %d of %s tokens does not issue, serial %d does", from, kind, active.Serial)}
		}
		return s.addLegacy(kind, l, n, store.LegacyAct{
			Retire: active.Serial, Action: "legacy-key.rotate", Serial: int(req.GetSerial()),
			Detail: map[string]any{"from": active.Serial, "imported": n.imported, "reason": req.GetReason()},
		}, store.LegacyActive)
	})
	if err != nil {
		return nil, n.about(err)
	}
	return &pb.RotateLegacyKeyResponse{Key: legacyKeyWith(l, n.serial), Keys: legacyKeysToProto(l)}, nil
}

// addLegacy adds a key under the serial that the act names, or the next one.
func (s legacyKeyService) addLegacy(kind legacy.Kind, l *store.LegacyKeys, n *newLegacy, a store.LegacyAct, state store.LegacyState) (store.LegacyAct, error) {
	if a.Serial == 0 {
		a.Serial = l.Last + 1
	}
	if a.Serial > maxLegacySerial {
		return a, &held{text: fmt.Sprintf("there is no serial after %d", maxLegacySerial)}
	}
	if _, taken := l.Key(a.Serial); taken {
		return a, &held{text: fmt.Sprintf("serial %d of %s tokens is or was in use, and serials do not come back", a.Serial, kind)}
	}
	sealed, err := s.vault().Seal(kind, a.Serial, n.secret)
	if err != nil {
		return a, err
	}
	n.serial = a.Serial
	a.Add = &store.NewLegacyKey{
		Serial: a.Serial, State: state, Secret: sealed, Imported: n.imported, Thumbprint: n.thumbprint,
		Digest: legacy.Digest(s.store.InstallationID(), n.secret),
	}
	return a, nil
}

func (s legacyKeyService) ListLegacyKeys(ctx context.Context, req *pb.ListLegacyKeysRequest) (*pb.ListLegacyKeysResponse, error) {
	kind, err := s.readable(ctx, req.GetKind())
	if err != nil {
		return nil, err
	}
	l, err := s.store.LegacyKeys(ctx, store.LegacyKind(kind))
	if err != nil {
		return nil, err
	}
	s.logLegacyFaults(ctx, &l)
	return &pb.ListLegacyKeysResponse{Keys: legacyKeysToProto(l)}, nil
}

func (s legacyKeyService) RemoveLegacyKey(ctx context.Context, req *pb.RemoveLegacyKeyRequest) (*pb.RemoveLegacyKeyResponse, error) {
	kind, err := s.managed(ctx, req.GetKind())
	if err != nil {
		return nil, err
	}
	serial := int(req.GetSerial())
	l, err := s.act(ctx, kind, func(l *store.LegacyKeys) (store.LegacyAct, error) {
		s.logLegacyFaults(ctx, l)
		k, err := legacyKeyOf(kind, l, serial)
		if err != nil || k.State == store.LegacyRemoved { // a repeated call changes nothing
			return store.LegacyAct{}, err
		}
		if why := needed(kind, l, k); why != "" && !req.GetForce() {
			return store.LegacyAct{}, &held{text: why + "; repeat with force"}
		}
		return store.LegacyAct{
			Remove: serial, Action: "legacy-key.remove", Serial: serial,
			Detail: map[string]any{"was": k.State, "force": req.GetForce(), "reason": req.GetReason()},
		}, nil
	})
	if err != nil {
		return nil, err
	}
	return &pb.RemoveLegacyKeyResponse{Key: legacyKeyWith(l, serial)}, nil
}

// needed says what a key is still needed for, "" if nothing but tokens of the past.
func needed(kind legacy.Kind, l *store.LegacyKeys, k store.LegacyKey) string {
	switch {
	case k.State == store.LegacyActive:
		return fmt.Sprintf("serial %d issues %s tokens: without it none are issued, and all that it has issued are refused", k.Serial, kind)
	case len(l.Trusted()) == 1:
		return fmt.Sprintf("serial %d is the last that verifies %s tokens: without it all are refused", k.Serial, kind)
	default:
		return ""
	}
}

func (s legacyKeyService) ExportLegacyKey(ctx context.Context, req *pb.ExportLegacyKeyRequest) (*pb.ExportLegacyKeyResponse, error) {
	kind, err := s.managed(ctx, req.GetKind())
	if err != nil {
		return nil, err
	}
	serial := int(req.GetSerial())
	var secret []byte
	l, err := s.act(ctx, kind, func(l *store.LegacyKeys) (store.LegacyAct, error) {
		k, err := issuingKey(kind, l)
		if serial != 0 {
			k, err = legacyKeyOf(kind, l, serial)
		}
		switch {
		case err != nil:
			return store.LegacyAct{}, err
		case !k.Trusted():
			return store.LegacyAct{}, &held{text: fmt.Sprintf("serial %d of %s tokens was removed, and its secret erased", serial, kind)}
		}
		serial = k.Serial
		if secret, err = s.vault().Open(kind, serial, k.Secret); err != nil {
			return store.LegacyAct{}, fmt.Errorf("legacy key %s/%d: %w", kind, serial, err)
		}
		return store.LegacyAct{Action: "legacy-key.export", Serial: serial, Detail: map[string]any{"reason": req.GetReason()}}, nil
	})
	if err != nil {
		return nil, err
	}
	return &pb.ExportLegacyKeyResponse{Key: legacyKeyWith(l, serial), Secret: secret}, nil
}

// legacyKeyOf returns the key with a serial, whatever its state.
func legacyKeyOf(kind legacy.Kind, l *store.LegacyKeys, serial int) (store.LegacyKey, error) {
	k, ok := l.Key(serial)
	switch {
	case ok:
		return k, nil
	case len(l.Faults) > 0: // it may be the one
		return k, errors.Join(l.Faults...)
	default:
		return k, &missing{fmt.Sprintf("there is no serial %d of %s tokens", serial, kind)}
	}
}

func (s legacyKeyService) VerifyLegacyToken(ctx context.Context, req *pb.VerifyLegacyTokenRequest) (*pb.VerifyLegacyTokenResponse, error) {
	kind, err := s.readable(ctx, req.GetKind())
	if err != nil {
		return nil, err
	}
	l, err := s.store.LegacyKeys(ctx, store.LegacyKind(kind))
	if err != nil {
		return nil, err
	}
	s.logLegacyFaults(ctx, &l)
	t, serial, err := s.verifyLegacy(kind, &l, req.GetToken())
	if reason := legacy.Reason(err); err != nil && reason != "other" {
		return &pb.VerifyLegacyTokenResponse{Reason: reason, Detail: err.Error()}, nil
	}
	if err != nil {
		return nil, err // not an answer about the token
	}
	return &pb.VerifyLegacyTokenResponse{Valid: true, Zone: t.Zone, Serial: int32(serial)}, nil
}

// verifyLegacy tries the key that a token names, or all if its kind names none.
func (s *Service) verifyLegacy(kind legacy.Kind, l *store.LegacyKeys, raw string) (legacy.Token, int, error) {
	u, err := legacy.Parse(kind, raw)
	if err != nil {
		return legacy.Token{}, 0, err
	}
	err = legacy.ErrUnknownKey
	for _, k := range l.Trusted() {
		if u.Serial() != 0 && u.Serial() != k.Serial {
			continue
		}
		key, kerr := s.vault().Key(kind, k.Serial, k.Secret)
		if kerr != nil {
			return legacy.Token{}, 0, fmt.Errorf("legacy key %s/%d: %w", kind, k.Serial, kerr)
		}
		var t legacy.Token
		if t, err = u.Verify(key); err == nil {
			return t, k.Serial, nil
		}
	}
	return legacy.Token{}, 0, err
}
