package store

import (
	"encoding/binary"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/tink-crypto/tink-go/v2/tink"
)

// sealer makes and checks the MACs of rows. What a MAC covers is an encoding in
// which every field has its length, after the name of the table, so no two
// different rows of any tables have the same encoding.
//
// A MAC is good in one installation only: databases may share an instance key,
// and a row must not be worth anything when it is copied from one to another.
type sealer struct {
	mac          tink.MAC
	installation uuid.UUID
}

func (s sealer) covered(e *encoding) []byte { return append(s.installation[:], e.buf...) }

func (s sealer) seal(e *encoding) ([]byte, error) {
	mac, err := s.mac.ComputeMAC(s.covered(e))
	if err != nil {
		return nil, fmt.Errorf("computing the MAC of a row: %w", err)
	}
	return mac, nil
}

func (s sealer) check(e *encoding, mac []byte, what string) error {
	if s.mac.VerifyMAC(mac, s.covered(e)) != nil {
		return fmt.Errorf("%s: %w", what, ErrTampered)
	}
	return nil
}

// encoding is the byte string that a MAC or a hash covers.
type encoding struct{ buf []byte }

func encodingOf(table string) *encoding {
	return (&encoding{}).text(table)
}

func (e *encoding) bytes(b []byte) *encoding {
	e.buf = binary.BigEndian.AppendUint32(e.buf, uint32(len(b)))
	e.buf = append(e.buf, b...)
	return e
}

func (e *encoding) text(s string) *encoding {
	e.buf = binary.BigEndian.AppendUint32(e.buf, uint32(len(s)))
	e.buf = append(e.buf, s...)
	return e
}

func (e *encoding) id(id uuid.UUID) *encoding { return e.bytes(id[:]) }

func (e *encoding) num(n int64) *encoding {
	e.buf = binary.BigEndian.AppendUint64(e.buf, uint64(n))
	return e
}

func (e *encoding) flag(b bool) *encoding {
	if b {
		return e.num(1)
	}
	return e.num(0)
}

// time encodes t to the microsecond, which is what databases keep.
func (e *encoding) time(t time.Time) *encoding {
	if t.IsZero() {
		return e.text("")
	}
	return e.text("t").num(t.UnixMicro())
}

func (e *encoding) list(ss []string) *encoding {
	e.num(int64(len(ss)))
	for _, s := range ss {
		e.text(s)
	}
	return e
}

// The encodings below are those of the first release and stay as they are. Every
// field is delimited, so a column that is added later goes to the end, as its name
// and its value, and only where it is not zero: rows from before it keep their
// MACs, and a replica from before it refuses a row whose meaning it does not know.

func (k *Keyset) encoding() *encoding {
	return encodingOf("keysets").id(k.ID).text(k.Name).text(string(k.Profile)).text(k.Algorithm).
		text(k.Backend).text(string(k.Distribution)).text(k.PolicyText).
		time(k.CreatedAt).time(k.UpdatedAt).num(k.Version)
}

func (k *SigningKey) encoding() *encoding {
	e := encodingOf("signing_keys").id(k.ID).id(k.KeysetID).num(int64(k.Serial)).text(string(k.Role)).
		text(string(k.State)).text(k.Algorithm).text(k.Backend).text(k.Label).bytes(k.Ref).text(k.KID).
		text(k.Thumbprint).bytes(k.PublicKey).flag(k.Imported).text(k.Reason).
		time(k.CreatedAt).time(k.PublishedAt).time(k.ActivateAfter).time(k.ActivatedAt).time(k.RetiredAt).
		time(k.RemovedAt).time(k.DestroyedAt).time(k.TrustedUntil).bytes(k.Attestation).num(k.Version)
	if !k.DestroyAskedAt.IsZero() {
		e.text("destroy_asked_at").time(k.DestroyAskedAt)
	}
	if k.Adopted != "" {
		e.text("adopted").text(k.Adopted)
	}
	return e
}

func (t *APIToken) encoding() *encoding {
	e := encodingOf("api_tokens").id(t.ID).text(t.Name).bytes(t.Hash).list(t.Roles).list(t.Keysets).
		list(t.Zones).list(t.Scopes).num(int64(t.MaxValidFor)).text(t.CreatedBy).
		time(t.CreatedAt).time(t.ExpiresAt).time(t.RevokedAt).num(t.Version)
	if len(t.Dataplanes) > 0 {
		e.text("dataplanes").list(t.Dataplanes)
	}
	return e
}

func (s sealer) sealKeyset(k *Keyset) (err error) {
	if k.PolicyText, err = k.Policy.encode(); err != nil {
		return fmt.Errorf("keyset %s: %w", k.Name, err)
	}
	k.MAC, err = s.seal(k.encoding())
	return err
}

func (s sealer) openKeyset(k *Keyset) (err error) {
	if err := s.check(k.encoding(), k.MAC, "keyset "+k.Name); err != nil {
		return err
	}
	if k.Policy, err = decodePolicy(k.PolicyText); err != nil {
		return fmt.Errorf("keyset %s: %w", k.Name, err)
	}
	return nil
}

func (s sealer) sealKey(k *SigningKey) (err error) {
	k.MAC, err = s.seal(k.encoding())
	return err
}

func (s sealer) checkKey(k *SigningKey) error {
	return s.check(k.encoding(), k.MAC, fmt.Sprintf("signing key %s (serial %d)", k.ID, k.Serial))
}

func (s sealer) sealToken(t *APIToken) (err error) {
	t.MAC, err = s.seal(t.encoding())
	return err
}

func (s sealer) checkToken(t *APIToken) error {
	return s.check(t.encoding(), t.MAC, "API token "+t.ID.String())
}
