package token

import (
	"errors"
	"fmt"
	"strconv"
	"time"
)

// MaxIDLength is the longest jti that is accepted.
const MaxIDLength = 255

// Registered are the registered claims (RFC 7519 section 4.1) that all profiles
// share. Times have the precision of a second. What is zero is left out when
// encoding.
type Registered struct {
	ExpiresAt time.Time // exp, required
	NotBefore time.Time // nbf
	IssuedAt  time.Time // iat
	ID        string    // jti, required: what revocation goes by
	Issuer    string    // iss
}

// registeredNames returns the claims that every profile knows. Besides those in
// [Registered] that is aud: see read.
func registeredNames() []string { return []string{"exp", "nbf", "iat", "jti", "iss", "aud"} }

func (r *Registered) registered() *Registered { return r }

func (r *Registered) read(name string, value []byte) (err error) {
	switch name {
	case "exp":
		r.ExpiresAt, err = readDate(value)
	case "nbf":
		r.NotBefore, err = readDate(value)
	case "iat":
		r.IssuedAt, err = readDate(value)
	case "jti":
		r.ID, err = readString(value)
	case "iss":
		r.Issuer, err = readString(value)
	case "aud":
		// RFC 7519 section 4.1.3: who is not in the audience must refuse. These
		// tokens have none, so one that names somebody was made for others.
		err = errors.New("the token is for a particular audience")
	}
	return err
}

func (r *Registered) check() error {
	switch {
	case r.ExpiresAt.IsZero():
		return errors.New("exp is missing")
	case r.ID == "":
		return errors.New("jti is missing or empty")
	case len(r.ID) > MaxIDLength:
		return fmt.Errorf("jti is longer than %d bytes", MaxIDLength)
	default:
		return nil
	}
}

// checkTimes compares the dates with now. A token is valid in [nbf, exp).
func (r *Registered) checkTimes(now time.Time, leeway time.Duration) error {
	switch late, early := now.Add(-leeway), now.Add(leeway); {
	case !late.Before(r.ExpiresAt):
		return fmt.Errorf("%w at %s", ErrExpired, r.ExpiresAt.Format(time.RFC3339))
	case early.Before(r.NotBefore):
		return fmt.Errorf("%w: nbf is %s", ErrNotYetValid, r.NotBefore.Format(time.RFC3339))
	case early.Before(r.IssuedAt):
		return fmt.Errorf("%w: iat is %s", ErrNotYetValid, r.IssuedAt.Format(time.RFC3339))
	default:
		return nil
	}
}

// appendMembers appends the members that are not zero, each led by a comma.
func (r *Registered) appendMembers(dst []byte) []byte {
	dst = appendDate(dst, `,"exp":`, r.ExpiresAt)
	dst = appendDate(dst, `,"nbf":`, r.NotBefore)
	dst = appendDate(dst, `,"iat":`, r.IssuedAt)
	if r.ID != "" {
		dst = appendString(append(dst, `,"jti":`...), r.ID)
	}
	if r.Issuer != "" {
		dst = appendString(append(dst, `,"iss":`...), r.Issuer)
	}
	return dst
}

func appendDate(dst []byte, name string, t time.Time) []byte {
	if t.IsZero() {
		return dst
	}
	return strconv.AppendInt(append(dst, name...), t.Unix(), 10)
}
