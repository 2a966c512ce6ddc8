//go:build cgo

package pkcs11

import (
	"errors"
	"fmt"
	"slices"

	p11 "github.com/miekg/pkcs11"

	"github.com/zonemint/zonemint/signer"
)

// inspected is what has to be known of a token before anybody logs into it.
type inspected struct {
	sessions   int // the most it allows, 0 if it does not say
	algorithms []signer.Algorithm
}

// inspect looks at a token without logging in. crypto11 does not show what a
// token can do, and tries the last PIN try as readily as the first.
func inspect(path string, id tokenID) (inspected, error) {
	module := p11.New(path)
	if module == nil {
		return inspected{}, failf(signer.Misconfigured, "%s cannot be loaded as a PKCS#11 module", path)
	}
	defer module.Destroy()
	switch err := module.Initialize(); {
	case errors.Is(err, p11.Error(p11.CKR_CRYPTOKI_ALREADY_INITIALIZED)): // another token of this module is in use
	case err != nil:
		return inspected{}, fmt.Errorf("initialize the PKCS#11 module: %w", err)
	default:
		defer module.Finalize() //nolint:errcheck // nothing depends on it
	}
	slot, info, err := findToken(module, id)
	if err != nil {
		return inspected{}, err
	}
	if err := checkToken(info, id); err != nil {
		return inspected{}, err
	}
	mechanisms, err := readMechanisms(module, slot)
	if err != nil {
		return inspected{}, err
	}
	return inspected{sessions: maxSessions(info), algorithms: mechanisms.algorithms()}, nil
}

// findToken insists that there is one token and not several to choose from.
func findToken(module *p11.Ctx, id tokenID) (slot uint, found p11.TokenInfo, err error) {
	slots, err := slotsOf(module, true)
	if err != nil {
		return 0, found, err
	}
	matches := 0
	for _, s := range slots {
		info, err := module.GetTokenInfo(s)
		if err != nil {
			return 0, found, fmt.Errorf("look at a PKCS#11 token: %w", err)
		}
		if info.Flags&p11.CKF_TOKEN_INITIALIZED != 0 && id == (tokenID{label: info.Label}) || id == (tokenID{serial: info.SerialNumber}) {
			slot, found = s, info
			matches++
		}
	}
	switch {
	case matches > 1:
		return 0, found, failf(signer.Misconfigured, "the PKCS#11 module has %d tokens %s: select one by its serial number", matches, id)
	case matches == 1:
		return slot, found, nil
	case len(slots) == 0:
		return 0, found, failf(signer.Unavailable, "the PKCS#11 module has no token in any slot: is the HSM connected?")
	default:
		return 0, found, absent(module, id, len(slots))
	}
}

// slotsOf lists the slots, or those with a token in them. A module without any that
// is reached through p11-kit says that the buffer of no length is too small.
func slotsOf(module *p11.Ctx, filled bool) ([]uint, error) {
	slots, err := module.GetSlotList(filled)
	if err != nil && !errors.Is(err, p11.Error(p11.CKR_BUFFER_TOO_SMALL)) {
		return nil, fmt.Errorf("list the PKCS#11 slots: %w", err)
	}
	return slots, nil
}

// absent is what to make of a module that answers and does not have the token. If
// a slot is empty, the token may be what belongs in there: a card that nobody
// has put in since the power came back, a partition of an HSM that is down. If none
// is, everything is there that the module knows of, and the name is wrong.
func absent(module *p11.Ctx, id tokenID, tokens int) error {
	slots, err := slotsOf(module, false)
	if err != nil {
		return err
	}
	if empty := len(slots) - tokens; empty > 0 {
		return failf(signer.Unavailable, "the PKCS#11 module has %d tokens in its slots, none %s, and %d empty slots: "+
			"is the HSM connected, and is that its name?", tokens, id, empty)
	}
	return &absentError{id, tokens}
}

// absentError says that a module has tokens but not the one asked for. When a
// backend is opened that is a fault of the configuration, later it is not.
type absentError struct {
	id     tokenID
	tokens int
}

func (e *absentError) Error() string {
	return fmt.Sprintf("the PKCS#11 module has %d tokens in its slots, and none %s", e.tokens, e.id)
}

// checkToken refuses to log in where that may lock the PIN: a service that is
// started again and again with a wrong PIN would do so.
func checkToken(info p11.TokenInfo, id tokenID) error {
	switch {
	case info.Flags&p11.CKF_USER_PIN_LOCKED != 0:
		return &pinError{failf(signer.Denied, "the PIN of the PKCS#11 token %s is locked: unlock it as its security officer", id)}
	case info.Flags&p11.CKF_USER_PIN_FINAL_TRY != 0:
		return &pinError{failf(signer.Denied, "the PIN of the PKCS#11 token %s has one try left, which is not risked here: "+
			"log in once with another tool, such as pkcs11-tool --login, then start again", id)}
	case maxSessions(info) == 1:
		return failf(signer.Misconfigured, "the PKCS#11 token %s allows a single session, and two are needed", id)
	}
	return nil
}

// pinError is a failure after which a token is left alone.
type pinError struct{ err error }

func (e *pinError) Error() string { return e.err.Error() }
func (e *pinError) Unwrap() error { return e.err }

func maxSessions(info p11.TokenInfo) int {
	const plenty = 1 << 20 // so that what does not fit an int does not matter
	if n := info.MaxRwSessionCount; n != p11.CK_EFFECTIVELY_INFINITE && n < plenty {
		return int(n)
	}
	return 0
}

// keySizes is the range of key sizes of a mechanism, in bits.
type keySizes struct{ smallest, largest uint }

// mechanisms are those of a token that matter here.
type mechanisms map[uint]keySizes

func readMechanisms(module *p11.Ctx, slot uint) (mechanisms, error) {
	list, err := module.GetMechanismList(slot)
	if err != nil {
		return nil, fmt.Errorf("list the mechanisms of the PKCS#11 token: %w", err)
	}
	has := mechanisms{}
	for _, m := range list {
		switch m.Mechanism {
		case p11.CKM_RSA_PKCS_KEY_PAIR_GEN, p11.CKM_RSA_PKCS, p11.CKM_RSA_PKCS_PSS, p11.CKM_EC_KEY_PAIR_GEN, p11.CKM_ECDSA:
		default:
			continue
		}
		info, err := module.GetMechanismInfo(slot, []*p11.Mechanism{m})
		if err != nil {
			return nil, fmt.Errorf("look at a mechanism of the PKCS#11 token: %w", err)
		}
		has[m.Mechanism] = keySizes{info.MinKeySize, info.MaxKeySize}
	}
	return has, nil
}

// candidates returns the algorithms that any token may have.
func candidates() []signer.Algorithm {
	return slices.DeleteFunc(signer.Algorithms(), func(alg signer.Algorithm) bool { return alg.RSABits() == 0 && alg.Curve() == nil })
}

// algorithms returns those that keys can be made for and signed with.
func (m mechanisms) algorithms() (all []signer.Algorithm) {
	for _, alg := range signer.Algorithms() {
		switch {
		case alg.RSABits() != 0:
			sign := uint(p11.CKM_RSA_PKCS)
			if isPSS(alg) {
				sign = p11.CKM_RSA_PKCS_PSS
			}
			if m.has(p11.CKM_RSA_PKCS_KEY_PAIR_GEN, alg.RSABits()) && m.has(sign, alg.RSABits()) {
				all = append(all, alg)
			}
		case alg.Curve() != nil:
			bits := alg.Curve().Params().BitSize
			if m.has(p11.CKM_EC_KEY_PAIR_GEN, bits) && m.has(p11.CKM_ECDSA, bits) {
				all = append(all, alg)
			}
		}
	}
	return all
}

// has says whether keys of that size work. Some tokens give sizes in bytes and
// some none; a limit too low to be one in bits is not taken for one.
func (m mechanisms) has(mechanism uint, bits int) bool {
	sizes, ok := m[mechanism]
	const leastRSA, leastEC = 1024, 192
	least := uint(leastRSA)
	if mechanism == p11.CKM_EC_KEY_PAIR_GEN || mechanism == p11.CKM_ECDSA {
		least = leastEC
	}
	return ok && (sizes.largest < least || uint(bits) <= sizes.largest) && uint(bits) >= sizes.smallest
}
