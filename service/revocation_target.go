package service

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"

	pb "github.com/zonemint/zonemint/proto/zonemint/v1"
	"github.com/zonemint/zonemint/service/caller"
	"github.com/zonemint/zonemint/service/keyring"
	"github.com/zonemint/zonemint/store"
	"github.com/zonemint/zonemint/token"
)

// target is the token that a revocation is about.
type target struct {
	keyset    *keyring.Keyset
	jti       string
	subject   string // the zone, the dataplane's name, the user; empty if it is not known
	expiresAt time.Time
	how       string // it was named: "jti" or "token"
}

// farthest bounds the expiry that a request may claim for a token that nobody
// here has seen.
const farthest = 100 * 365 * 24 * time.Hour

// target finds out which token is to be revoked, and that the caller may.
func (s revocationService) target(ctx context.Context, who caller.Caller, req *pb.RevokeTokenRequest) (t target, err error) {
	if req.GetToken() != "" {
		t, err = s.targetByToken(ctx, who, req)
	} else {
		t, err = s.targetByID(ctx, who, req)
	}
	if err != nil {
		return t, err
	}
	return t, mayReach(who, t.keyset, t.subject)
}

// mayReach checks a token's subject against the caller's zones. What it says is the
// same whether or not the subject is known: it is none of the caller's business.
func mayReach(who caller.Caller, ks *keyring.Keyset, subject string) error {
	if err := zonesOnly(who, ks); err != nil {
		return err
	}
	if who.NarrowedToZones() && subject == "" || who.MayReach(subject) != nil {
		return fmt.Errorf("%w: this API token is for some zones only, and the token's zone is not known to be one of them", caller.ErrForbidden)
	}
	return nil
}

// mayReachID does the same by a token ID, for which it asks the ledger only if
// that matters.
func (s revocationService) mayReachID(ctx context.Context, who caller.Caller, ks *keyring.Keyset, jti string) error {
	if !who.NarrowedToZones() {
		return zonesOnly(who, ks)
	}
	row, err := s.issuance(ctx, jti)
	if err != nil {
		return err
	}
	if row.KeysetID != ks.ID {
		row.Subject = ""
	}
	return mayReach(who, ks, row.Subject)
}

// issuance returns the ledger's row of a token ID, the zero row if it has none.
func (s revocationService) issuance(ctx context.Context, jti string) (store.Issuance, error) {
	id, err := uuid.Parse(jti)
	if err != nil {
		return store.Issuance{}, nil //nolint:nilerr // zonemint's are UUIDs, other issuers' may be anything
	}
	row, err := s.store.Issuance(ctx, id)
	if errors.Is(err, store.ErrNotFound) {
		return store.Issuance{}, nil
	}
	return row, err
}

// targetByID goes by the ledger. Of a token ID that is not there, such as one of
// a token that was issued offline, the request has to say the rest.
func (s revocationService) targetByID(ctx context.Context, who caller.Caller, req *pb.RevokeTokenRequest) (target, error) {
	if len(req.GetJti()) > token.MaxIDLength {
		return target{}, &invalid{"jti", fmt.Sprintf("is longer than %d bytes, which no token's is", token.MaxIDLength)}
	}
	row, err := s.issuance(ctx, req.GetJti())
	if err != nil {
		return target{}, err
	}
	if row.KeysetID == uuid.Nil {
		return s.targetUnseen(who, req)
	}
	ks, err := s.ring.Load().KeysetByID(row.KeysetID)
	if who.NarrowedToKeysets() && (err != nil || who.MaySee(ks.Name) != nil) {
		return s.targetUnseen(who, req) // the caller is not to learn that there is such a token
	}
	if err != nil {
		return target{}, err
	}
	if named := req.GetKeyset(); named != "" && named != ks.Name {
		return target{}, &invalid{"keyset", fmt.Sprintf("is %q, but the token is of keyset %q", named, ks.Name)}
	}
	// The ledger's form of the ID: a UUID can be written in several ways, and
	// tokens have one.
	return target{keyset: ks, jti: row.JTI.String(), subject: row.Subject, expiresAt: wholeSeconds(row.ExpiresAt), how: "jti"}, nil
}

func (s revocationService) targetUnseen(who caller.Caller, req *pb.RevokeTokenRequest) (target, error) {
	var missing []string
	if req.GetKeyset() == "" {
		missing = append(missing, "keyset")
	}
	if req.GetExpiresAt() == nil {
		missing = append(missing, "expires_at")
	}
	if len(missing) > 0 {
		return target{}, &invalid{strings.Join(missing, " and "), "required, because the ledger does not have this jti"}
	}
	ks, err := s.visible(who, req.GetKeyset())
	if err != nil {
		return target{}, err
	}
	expiry, err := optionalTime("expires_at", req.GetExpiresAt())
	if err != nil {
		return target{}, err
	}
	if expiry.After(s.clock.estimate().Add(farthest)) {
		return target{}, &invalid{"expires_at", "is more than 100 years away"}
	}
	return target{keyset: ks, jti: req.GetJti(), expiresAt: wholeSeconds(expiry), how: "jti"}, nil
}

// targetByToken goes by the token itself, if a key of a keyset that the caller
// may see has signed it. Whatever has become of the key: tokens of a key that was
// removed or distrusted may be believed by somebody who has not heard of that.
func (s revocationService) targetByToken(ctx context.Context, who caller.Caller, req *pb.RevokeTokenRequest) (target, error) {
	raw := req.GetToken()
	header, err := token.UnverifiedHeader(raw)
	if err != nil {
		return target{}, &invalid{"token", err.Error()}
	}
	keysets, err := s.candidates(who, req.GetKeyset())
	if err != nil {
		return target{}, err
	}
	// Imported keys keep their kid, which is unique in its keyset only. So the
	// signature decides whose token it is.
	refused := fmt.Errorf("%w: %.64q", token.ErrUnknownKey, header.KeyID)
	for _, keys := range []keysOf{s.liveKeys, s.allKeys} {
		for _, ks := range keysets {
			list, err := keys(ctx, ks)
			if err != nil {
				return target{}, err
			}
			for _, k := range list {
				if k.KID != header.KeyID || len(k.PublicKey) == 0 {
					continue
				}
				t, err := signedBy(ctx, ks, k, raw)
				if err == nil {
					return t, nil
				}
				refused = err
			}
		}
	}
	return target{}, &invalid{"token", refused.Error()}
}

// candidates returns the keysets that a token may be of: the one that the request
// names, or all that the caller may see.
func (s revocationService) candidates(who caller.Caller, named string) ([]*keyring.Keyset, error) {
	if named != "" {
		ks, err := s.visible(who, named)
		return []*keyring.Keyset{ks}, err
	}
	var list []*keyring.Keyset
	for _, ks := range s.ring.Load().Keysets() {
		if who.MaySee(ks.Name) == nil {
			list = append(list, ks)
		}
	}
	return list, nil
}

// keysOf returns keys of a keyset.
type keysOf func(context.Context, *keyring.Keyset) ([]store.SigningKey, error)

func (s revocationService) liveKeys(_ context.Context, ks *keyring.Keyset) ([]store.SigningKey, error) {
	return ks.Keys, nil
}

func (s revocationService) allKeys(ctx context.Context, ks *keyring.Keyset) ([]store.SigningKey, error) {
	keys, err := s.store.SigningKeys(ctx, ks.ID)
	return keys, s.despiteTampering(ctx, err)
}

// signedBy verifies a token with one key and says what it is.
func signedBy(ctx context.Context, ks *keyring.Keyset, k store.SigningKey, raw string) (target, error) {
	switch ks.Profile {
	case store.ProfileZone:
		return signedAs[token.ZoneClaims](ctx, ks, k, raw)
	case store.ProfileDataplane:
		return signedAs[token.DataplaneClaims](ctx, ks, k, raw)
	case store.ProfileUser:
		return signedAs[token.UserClaims](ctx, ks, k, raw)
	default:
		return target{}, fmt.Errorf("keyset %s has profile %q", ks.Name, ks.Profile)
	}
}

// signedAs gives up two checks and no other: the token may have expired, or not
// be valid yet, for the clock is set to its own time; and it may be of any
// issuer, because not every verifier asks for one, and the key has signed it.
func signedAs[C token.Claims](ctx context.Context, ks *keyring.Keyset, k store.SigningKey, raw string) (target, error) {
	key, err := keyring.PublicKey(k)
	if err != nil {
		return target{}, err
	}
	keys, err := token.NewKeySet(key)
	if err != nil {
		return target{}, err
	}
	v, err := token.NewVerifier[C](keys, token.Options{Now: func() time.Time { return lastMoment(raw) }})
	if err != nil {
		return target{}, err
	}
	verified, err := v.Verify(ctx, raw)
	if err != nil {
		return target{}, err
	}
	var claims struct {
		Exp int64
		JTI string
	}
	if err := json.Unmarshal(verified.Claims.AppendJSON(nil), &claims); err != nil {
		return target{}, fmt.Errorf("reading verified claims: %w", err)
	}
	return target{
		keyset: ks, jti: claims.JTI, subject: verified.Claims.Subject(),
		expiresAt: time.Unix(claims.Exp, 0).UTC(), how: "token",
	}, nil
}

// lastMoment returns the last moment at which a token says that it is valid. It
// verifies nothing; the zero time stands for a token that does not say.
func lastMoment(raw string) time.Time {
	parts := strings.Split(raw, ".")
	if len(parts) != 3 {
		return time.Time{}
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return time.Time{}
	}
	var claims struct {
		Exp int64 `json:"exp"`
	}
	if json.Unmarshal(payload, &claims) != nil {
		return time.Time{}
	}
	return time.Unix(claims.Exp, 0).Add(-time.Nanosecond)
}
