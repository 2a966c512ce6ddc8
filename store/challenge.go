package store

import (
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"
	"time"
)

const challengePrefix = "zonemint-challenge-v1"

// NewChallenge returns a text that somebody is to sign, to prove that a private
// key is theirs. It is good until then, for what it is about, and made of text
// without spaces or dots. Nothing is stored: the MAC in it makes it recognisable
// on every replica.
func (d *DB) NewChallenge(about string, until time.Time) (string, error) {
	mac, err := d.seal.seal(challengeEncoding(about, until.Unix()))
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%s:%d:%s", challengePrefix, until.Unix(), base64.RawURLEncoding.EncodeToString(mac)), nil
}

// CheckChallenge says whether a challenge was made by NewChallenge, about the
// same, and is still good. ErrRejected if not.
func (d *DB) CheckChallenge(challenge, about string, now time.Time) error {
	parts := strings.Split(challenge, ":")
	if len(parts) != 3 || parts[0] != challengePrefix {
		return fmt.Errorf("not a challenge: %w", ErrRejected)
	}
	until, err := strconv.ParseInt(parts[1], 10, 64)
	mac, merr := base64.RawURLEncoding.DecodeString(parts[2])
	if err != nil || merr != nil || d.seal.check(challengeEncoding(about, until), mac, "challenge") != nil {
		return fmt.Errorf("the challenge was made for something else: %w", ErrRejected)
	}
	if now.Unix() > until {
		return fmt.Errorf("the challenge is too old: %w", ErrRejected)
	}
	return nil
}

func challengeEncoding(about string, until int64) *encoding {
	return encodingOf("challenge").text(about).num(until)
}
