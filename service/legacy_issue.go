package service

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"

	pb "github.com/zonemint/zonemint/proto/zonemint/v1"
	"github.com/zonemint/zonemint/service/legacy"
	"github.com/zonemint/zonemint/store"
	"github.com/zonemint/zonemint/token"
)

// Legacy turns on the old HS256 tokens of Kuma and Kong Mesh, each kind for itself.
// They have no expiry and no ID, and their keys are secrets that every verifier
// shares: turn them on for as long as something cannot do without, and no longer.
type Legacy struct {
	// ControlPlane are the control-plane tokens of Kong Mesh 1.x.
	ControlPlane bool
	// ZoneIngress are the zone-ingress tokens of Kuma 1.x.
	ZoneIngress bool
	// AEAD encrypts their keys under the instance key. Required if one is on.
	AEAD legacy.AEAD
}

func (l Legacy) on(kind legacy.Kind) bool {
	return kind == legacy.ControlPlane && l.ControlPlane || kind == legacy.ZoneIngress && l.ZoneIngress
}

// check says loudly which old tokens are on. They are meant to be a passing state.
func (l Legacy) check(ctx context.Context, log *slog.Logger) error {
	for _, kind := range legacy.Kinds() {
		if !l.on(kind) {
			continue
		}
		if l.AEAD == nil {
			return fmt.Errorf("%s tokens are on, and there is nothing to encrypt their keys with", kind)
		}
		log.WarnContext(ctx, "old HS256 tokens are on: they never expire", slog.String("kind", string(kind)))
	}
	return nil
}

// vault opens the secrets of legacy keys.
func (s *Service) vault() legacy.Vault {
	return legacy.Vault{AEAD: s.cfg.Legacy.AEAD, Installation: s.store.InstallationID()}
}

// legacyOff is the answer to every call about a kind of token that is off.
func legacyOff(kind legacy.Kind) error {
	setting := "control_plane"
	if kind == legacy.ZoneIngress {
		setting = "zone_ingress"
	}
	return &held{text: fmt.Sprintf("legacy tokens are off; legacy_tokens.%s in the server's configuration turns %s tokens on. "+
		"They are HS256 without expiry: issue zone tokens instead where you can", setting, kind)}
}

// scopeOf is the scope of the zone tokens that take the place of a kind of old ones.
func scopeOf(kind legacy.Kind) string {
	if kind == legacy.ZoneIngress {
		return token.ScopeIngress
	}
	return token.ScopeCP
}

func (s tokenService) IssueControlPlaneToken(ctx context.Context, req *pb.IssueControlPlaneTokenRequest) (*pb.IssueControlPlaneTokenResponse, error) {
	raw, serial, err := s.issueLegacy(ctx, legacy.ControlPlane, req.GetZone())
	if err != nil {
		return nil, err
	}
	return &pb.IssueControlPlaneTokenResponse{Token: raw, Serial: int32(serial)}, nil
}

func (s tokenService) IssueZoneIngressToken(ctx context.Context, req *pb.IssueZoneIngressTokenRequest) (*pb.IssueZoneIngressTokenResponse, error) {
	raw, serial, err := s.issueLegacy(ctx, legacy.ZoneIngress, req.GetZone())
	if err != nil {
		return nil, err
	}
	return &pb.IssueZoneIngressTokenResponse{Token: raw, Serial: int32(serial)}, nil
}

// issueLegacy makes an old token. It has no ID and so no row in the ledger; what
// takes its place is an audit event, in a transaction that checks once more that the
// key issues and the caller may. The token leaves only after the commit.
func (s *Service) issueLegacy(ctx context.Context, kind legacy.Kind, zone string) (raw string, serial int, err error) {
	if !s.cfg.Legacy.on(kind) {
		return "", 0, legacyOff(kind)
	}
	who := callerOf(ctx)
	if err := who.MayIssueLegacy(zone, scopeOf(kind)); err != nil {
		return "", 0, err
	}
	_, err = s.store.ActOnLegacyKeys(ctx, store.LegacyKind(kind), actorOf(ctx), func(l *store.LegacyKeys) (store.LegacyAct, error) {
		s.logLegacyFaults(ctx, l)
		k, err := issuingKey(kind, l)
		if err != nil {
			return store.LegacyAct{}, err
		}
		serial = k.Serial
		if raw, err = s.makeLegacy(kind, zone, k); err != nil {
			return store.LegacyAct{}, err
		}
		return store.LegacyAct{
			Action: "legacy.issue", Serial: serial, Detail: map[string]any{"kind": kind, "zone": zone, "serial": serial},
		}, nil
	})
	if err != nil {
		return "", 0, err
	}
	s.metrics.issuedLegacy(ctx, string(kind))
	s.log.InfoContext(ctx, "old HS256 token issued", slog.String("kind", string(kind)), slog.String("zone", zone),
		slog.Int("serial", serial), slog.String("caller", who.Name), slog.String("request_id", requestID(ctx)))
	return raw, serial, nil
}

func (s *Service) makeLegacy(kind legacy.Kind, zone string, k store.LegacyKey) (string, error) {
	key, err := s.vault().Key(kind, k.Serial, k.Secret)
	if err != nil {
		return "", fmt.Errorf("legacy key %s/%d: %w", kind, k.Serial, err)
	}
	t := legacy.Token{Zone: zone}
	if kind == legacy.ControlPlane {
		t.Serial = k.Serial
	}
	return t.Encode(kind, key)
}

// issuingKey returns the key that issues.
func issuingKey(kind legacy.Kind, l *store.LegacyKeys) (store.LegacyKey, error) {
	k, ok := l.Active()
	if ok {
		return k, nil
	}
	return k, cmp.Or(errors.Join(l.Faults...), error(&held{text: fmt.Sprintf(
		"there is no key for %s tokens; `zonemint legacy key create %s` makes one", kind, kind)}))
}

// logLegacyFaults says which rows are left out. It is never silent about tampering.
func (s *Service) logLegacyFaults(ctx context.Context, l *store.LegacyKeys) {
	if err := errors.Join(l.Faults...); err != nil {
		s.log.ErrorContext(ctx, "legacy keys left out", slog.String("request_id", requestID(ctx)), slog.Any("error", err))
	}
}
