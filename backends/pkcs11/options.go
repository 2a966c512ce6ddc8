package pkcs11

import (
	"cmp"
	"errors"
	"log/slog"
	"path/filepath"
	"slices"
	"time"

	"github.com/zonemint/zonemint/signer"
)

// The defaults of [Options].
const (
	DefaultMaxSessions = 8
	DefaultPoolWait    = 5 * time.Second
	DefaultCallTimeout = 10 * time.Second
)

// Options say which token a backend uses and how. The PIN is not among them,
// only where it is to be had: what is written in a configuration file or on a
// command line is read by too many.
type Options struct {
	// Module is the absolute path of the PKCS#11 library.
	Module string

	// TokenLabel or TokenSerial, exactly one of them, selects the token. Slot
	// numbers do not: some modules renumber their slots.
	TokenLabel  string
	TokenSerial string

	// PINFile, PINEnv or PINCommand, exactly one of them, says where the user
	// PIN comes from: the first line of a file, an environment variable, or the
	// first line that a command prints. The command is run without a shell and
	// has ten seconds. The PIN is fetched once, when the backend is opened.
	PINFile    string
	PINEnv     string
	PINCommand []string

	// MaxSessions is how many sessions are opened at the token, at least 2: one
	// holds the login, the others sign. A token that allows fewer gets fewer.
	// Backends on the same token share the sessions of the first that was
	// opened, and p11-kit-client never gets more than 2. 0 means DefaultMaxSessions.
	MaxSessions int

	// PoolWait is how long a call waits for a session, or one that changes the
	// token for its turn, before it fails as throttled. 0 means DefaultPoolWait.
	PoolWait time.Duration

	// CallTimeout is how long a call into the module may take before the module
	// counts as hung, and all calls fail at once until that one has returned.
	// Making a key may take two minutes. 0 means DefaultCallTimeout.
	CallTimeout time.Duration

	// Algorithms are those to be offered. One that the token lacks is refused
	// when the backend is opened. Empty means all that the token has.
	Algorithms []signer.Algorithm

	// MayBeAway opens the backend also if the HSM does not answer, within
	// CallTimeout. It is down then until the HSM is there. What the token can do is not
	// known before that: the backend offers Algorithms, or if that is empty all that
	// PKCS#11 tokens may have, and refuses keys of those that turn out to be missing.
	MayBeAway bool

	Logger *slog.Logger     // nil means slog.Default()
	Now    func() time.Time // nil means time.Now
}

// complete returns the options with their defaults filled in, or an error whose
// code is Misconfigured and which names everything that is wrong.
func (o Options) complete() (Options, error) {
	if err := o.check(); err != nil {
		return o, &codedError{signer.Misconfigured, err}
	}
	o.MaxSessions = cmp.Or(o.MaxSessions, DefaultMaxSessions)
	o.PoolWait = cmp.Or(o.PoolWait, DefaultPoolWait)
	o.CallTimeout = cmp.Or(o.CallTimeout, DefaultCallTimeout)
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return o, nil
}

func (o Options) check() error {
	var faults []error
	refuse := func(wrong bool, text string) {
		if wrong {
			faults = append(faults, errors.New(text))
		}
	}
	refuse(!filepath.IsAbs(o.Module), "the PKCS#11 module needs an absolute path")
	refuse((o.TokenLabel == "") == (o.TokenSerial == ""), "a PKCS#11 token is selected by its label or by its serial number, by exactly one of them")
	refuse(o.pinSources() != 1, "the PIN comes from a file, from an environment variable or from a command, from exactly one of them")
	refuse(o.MaxSessions < 0 || o.MaxSessions == 1, "a PKCS#11 backend needs 2 sessions or more")
	refuse(o.PoolWait < 0, "the wait for a PKCS#11 session cannot be negative")
	refuse(o.CallTimeout < 0, "the timeout of PKCS#11 calls cannot be negative")
	refuse(slices.Contains(o.Algorithms, signer.EdDSA), "the PKCS#11 backend has no EdDSA keys: use RSA or ECDSA")
	return errors.Join(faults...)
}

func (o Options) pinSources() int {
	n := 0
	for _, set := range []bool{o.PINFile != "", o.PINEnv != "", len(o.PINCommand) > 0} {
		if set {
			n++
		}
	}
	return n
}

// tokenID is how an operator selects a token of a module.
type tokenID struct{ label, serial string }

func (id tokenID) String() string {
	if id.serial != "" {
		return "with serial number " + id.serial
	}
	return `"` + id.label + `"`
}

func (o Options) token() tokenID { return tokenID{o.TokenLabel, o.TokenSerial} }
