package service

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"github.com/zonemint/zonemint/service/caller"
	"github.com/zonemint/zonemint/service/keyring"
	"github.com/zonemint/zonemint/service/ledger"
	"github.com/zonemint/zonemint/service/profile"
	"github.com/zonemint/zonemint/store"
	"github.com/zonemint/zonemint/token"
)

// draft is a token that may be issued: the policy has been asked, and only the
// key, the time and the ID are missing.
type draft struct {
	keyset   *keyring.Keyset
	subject  string
	scopes   string // as the ledger has them, a JSON array
	validFor time.Duration
	// input appends the encoded header and payload.
	input func(dst []byte, header string, r token.Registered) []byte
}

// issued is a token that is signed and recorded.
type issued struct {
	token     string
	jti       string
	kid       string
	expiresAt time.Time
}

// pending is a token that is on its way: its row has been handed in, its
// signature is yet to be made.
type pending struct {
	draft
	key *keyring.Active
	// patience is how long the key's backend has, 0 for as long as the caller has:
	// the keyset has another key to sign with.
	patience time.Duration
	row      store.Issuance
	claims   token.Registered
}

// issue makes one token. The signature and the ledger row are made at the same
// time, and the token is returned only when both are done.
func (s *Service) issue(ctx context.Context, who caller.Caller, w wanted) (issued, error) {
	if faults := w.Faults(); len(faults) > 0 {
		return issued{}, faulty(faults)
	}
	var failed exclusions
	for refused := 0; ; {
		seen := s.ring.Load().Generation
		out, err := s.tryIssue(ctx, who, w, failed)
		switch {
		case failed.add(err):
			// With the key of the other backend it is another token: another ID,
			// another row.
		case errors.Is(err, ledger.ErrKeyRefused) && refused < refusals:
			// The key was replaced and this replica has not heard of it yet, or tokens
			// as old as this one are being revoked. With the new ring too it is another
			// token.
			refused++
			if err := s.ring.RefreshPast(ctx, seen); err != nil {
				return issued{}, err
			}
		default:
			return out, s.noted(who, err)
		}
	}
}

// refusals is how many keys in a row a request may see refused before the last
// attempt. The ring may have moved for another reason while it was refused, so
// that the ring of the second attempt is too old as well.
const refusals = 2

// noted makes the next request look the caller up again, if the database was
// seen to refuse it.
func (s *Service) noted(who caller.Caller, err error) error {
	if errors.Is(err, ledger.ErrCallerRefused) {
		s.callers.Forget(who.TokenID())
	}
	return err
}

func (s *Service) tryIssue(ctx context.Context, who caller.Caller, w wanted, failed exclusions) (issued, error) {
	d, err := w.draft(s.ring.Load(), who)
	if err != nil {
		return issued{}, err
	}
	p, err := s.begin(ctx, who, d, failed)
	if err != nil {
		return issued{}, err
	}
	ticket, err := s.ledger.Submit([]store.Issuance{p.row})
	if err != nil {
		return issued{}, err
	}
	out, signErr := p.sign(ctx)
	s.learn(p.keyset, p.key, signErr)
	signErr = s.again(ctx, p.keyset, p.key, signErr)
	rowErrs, waitErr := ticket.Wait(ctx)
	switch {
	case rowErrs != nil: // first: a key that was replaced may be gone from its backend too
		return issued{}, fmt.Errorf("recording: %w", rowErrs[0])
	case signErr != nil:
		return issued{}, fmt.Errorf("signing with %s: %w", p.key.KID, signErr)
	case waitErr != nil:
		return issued{}, waitErr
	}
	return out, nil
}

// begin takes the key, the time and an ID for a draft.
func (s *Service) begin(ctx context.Context, who caller.Caller, d draft, failed exclusions) (*pending, error) {
	key, patience, err := s.signingKey(ctx, d.keyset, failed)
	if err != nil {
		return nil, err
	}
	now, err := s.clock.stamp()
	if err != nil {
		return nil, err
	}
	jti, err := newJTI(now)
	if err != nil {
		return nil, err
	}
	backdated := now.Add(-time.Duration(d.keyset.Policy.Backdate)).Truncate(time.Second)
	expires := now.Add(d.validFor).Truncate(time.Second)
	return &pending{
		draft: d, key: key, patience: patience,
		row: store.Issuance{
			JTI: jti, KeysetID: d.keyset.ID, Serial: key.Serial, Subject: d.subject, Scopes: d.scopes,
			IssuedAt: now.Truncate(time.Microsecond), ExpiresAt: expires, Caller: who.Name,
			KeyID: key.ID, CallerToken: who.TokenID(),
		},
		claims: token.Registered{
			ExpiresAt: expires, NotBefore: backdated, IssuedAt: backdated, ID: jti.String(), Issuer: s.cfg.Issuer,
		},
	}, nil
}

// sign makes the token's text.
func (p *pending) sign(ctx context.Context) (issued, error) {
	input := p.signingInput()
	sig, err := p.key.SignJWS(hurried(ctx, p.patience), input)
	if err != nil {
		return issued{}, err
	}
	return p.signed(input, sig), nil
}

func (p *pending) signingInput() []byte {
	return p.input(make([]byte, 0, 1024), p.key.Header, p.claims)
}

// signed is the token with its signature.
func (p *pending) signed(input, sig []byte) issued {
	return issued{
		token: string(token.AppendSignature(input, sig)), jti: p.claims.ID, kid: p.key.KID, expiresAt: p.claims.ExpiresAt,
	}
}

// newJTI returns a UUIDv7 of the given moment, which is the database's and not
// the replica's: the ledger is partitioned by it.
func newJTI(now time.Time) (uuid.UUID, error) {
	id, err := uuid.NewV7()
	if err != nil {
		return id, fmt.Errorf("token ID: %w", err)
	}
	at := store.FirstJTI(now)
	copy(id[:6], at[:6])
	return id, nil
}

// lifetime returns how long a token is to be valid, by the keyset's policy.
func lifetime(ks *keyring.Keyset, asked time.Duration) (time.Duration, error) {
	most, usual := time.Duration(ks.Policy.MaxValidFor), time.Duration(ks.Policy.DefaultValidFor)
	switch {
	case asked == 0 && usual == 0:
		return 0, &invalid{"valid_for", fmt.Sprintf("is required: say how long the token is to be valid, at most %s", most)}
	case asked == 0:
		return usual, nil
	case asked < time.Second:
		return 0, &invalid{"valid_for", "must be at least 1s"}
	case asked > most:
		return 0, &invalid{"valid_for", fmt.Sprintf("is %s, keyset %q allows %s at the most", asked, ks.Name, most)}
	}
	return asked, nil
}

// wanted is what a request for a token says, whatever it came by.
type wanted struct {
	profile.Wish
	keyset   string // empty: the one that the wish implies
	validFor time.Duration
}

// draft asks the policy for a token. The wish has no faults of its own.
func (w wanted) draft(ring *keyring.Snapshot, who caller.Caller) (draft, error) {
	name := w.keyset
	if name == "" {
		// Of those that the caller may see: the name may get into an answer.
		name = w.Keyset(func(mesh string) []string { return who.Seen(ring.OfMesh(mesh)) })
	}
	if err := who.MaySee(name); err != nil {
		return draft{}, err
	}
	ks, err := ring.Keyset(name)
	if err != nil {
		return draft{}, err
	}
	if ks.Profile != w.Profile() {
		return draft{}, &invalid{"keyset", fmt.Sprintf("%q is for %s tokens, not for %s tokens", ks.Name, ks.Profile, w.Profile())}
	}
	if faults := w.Fits(ks.Keyset); len(faults) > 0 {
		return draft{}, faulty(faults)
	}
	validFor, err := lifetime(ks, w.validFor)
	if err != nil {
		return draft{}, err
	}
	if err := who.MayIssue(ks.Name, validFor); err != nil {
		return draft{}, err
	}
	if err := w.Within(who); err != nil {
		return draft{}, err
	}
	return draft{
		keyset: ks, subject: w.Subject(), scopes: store.EncodeList(w.Scopes()), validFor: validFor, input: w.AppendSigningInput,
	}, nil
}
