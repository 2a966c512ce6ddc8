//go:build cgo

package pkcs11

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	p11 "github.com/miekg/pkcs11"

	"github.com/zonemint/zonemint/signer"
)

func TestErrorsKeepTheirKind(t *testing.T) {
	for rv, want := range map[uint]signer.Code{
		p11.CKR_DEVICE_ERROR:               signer.Unavailable,
		p11.CKR_DEVICE_REMOVED:             signer.Unavailable,
		p11.CKR_TOKEN_NOT_PRESENT:          signer.Unavailable,
		p11.CKR_SESSION_HANDLE_INVALID:     signer.Unavailable,
		p11.CKR_CRYPTOKI_NOT_INITIALIZED:   signer.Unavailable,
		p11.CKR_USER_NOT_LOGGED_IN:         signer.Unavailable,
		p11.CKR_OPERATION_ACTIVE:           signer.Unavailable,
		p11.CKR_GENERAL_ERROR:              signer.Unavailable,
		p11.CKR_FUNCTION_FAILED:            signer.Unavailable,
		p11.CKR_DEVICE_MEMORY:              signer.Unavailable,
		p11.CKR_SESSION_COUNT:              signer.Throttled,
		p11.CKR_PIN_INCORRECT:              signer.Denied,
		p11.CKR_PIN_LOCKED:                 signer.Denied,
		p11.CKR_PIN_EXPIRED:                signer.Denied,
		p11.CKR_KEY_FUNCTION_NOT_PERMITTED: signer.Denied,
		p11.CKR_OBJECT_HANDLE_INVALID:      signer.NotFound,
		p11.CKR_KEY_HANDLE_INVALID:         signer.NotFound,
		p11.CKR_MECHANISM_INVALID:          signer.Unsupported,
		p11.CKR_FUNCTION_NOT_SUPPORTED:     signer.Unsupported,
		p11.CKR_TEMPLATE_INCONSISTENT:      signer.Misconfigured,
		p11.CKR_KEY_SIZE_RANGE:             signer.Misconfigured,
		p11.CKR_USER_PIN_NOT_INITIALIZED:   signer.Misconfigured,
		p11.CKR_VENDOR_DEFINED + 7:         signer.Unknown,
	} {
		if got := codeOf(fmt.Errorf("sign: %w", p11.Error(rv))); got != want {
			t.Errorf("%v is %q, want %q", p11.Error(rv), got, want)
		}
	}
	// A cause inside does not speak louder than what was made of it.
	if got := codeOf(failf(signer.Unavailable, "down: %w", p11.Error(p11.CKR_MECHANISM_INVALID))); got != signer.Unavailable {
		t.Errorf("a module that is down is %q", got)
	}
	for _, err := range []error{errors.New("somebody else's"), context.Canceled} {
		if got := codeOf(err); got != signer.Unknown {
			t.Errorf("%v is %q", err, got)
		}
	}
}

// What takes the module down for everybody must mean that it is down.
func TestWhatMeansThatTheHSMIsGoneIsUnavailable(t *testing.T) {
	for rv := p11.Error(0); rv < 0x400; rv++ {
		if gone(rv) && codeOf(rv) != signer.Unavailable {
			t.Errorf("%v means that the HSM is gone but is %q", rv, codeOf(rv))
		}
		if gone(rv) && (suspicious(rv) || aboutPIN(rv) || stale(rv)) {
			t.Errorf("%v means several things", rv)
		}
	}
}

func TestAlgorithmsFollowFromMechanisms(t *testing.T) {
	for name, c := range map[string]struct {
		has  mechanisms
		want []signer.Algorithm
	}{
		"nothing":                    {mechanisms{}, nil},
		"signs but makes no keys":    {mechanisms{p11.CKM_ECDSA: {256, 521}, p11.CKM_RSA_PKCS: {512, 4096}}, nil},
		"P-256 alone":                {mechanisms{p11.CKM_EC_KEY_PAIR_GEN: {256, 256}, p11.CKM_ECDSA: {256, 256}}, []signer.Algorithm{signer.ES256}},
		"curves above P-256":         {mechanisms{p11.CKM_EC_KEY_PAIR_GEN: {384, 521}, p11.CKM_ECDSA: {256, 521}}, []signer.Algorithm{signer.ES384}},
		"sizes in bytes":             {mechanisms{p11.CKM_EC_KEY_PAIR_GEN: {32, 66}, p11.CKM_ECDSA: {32, 66}}, []signer.Algorithm{signer.ES256, signer.ES384}},
		"RSA of 2048 bits, and PSS":  {mechanisms{p11.CKM_RSA_PKCS_KEY_PAIR_GEN: {1024, 2048}, p11.CKM_RSA_PKCS_PSS: {1024, 4096}}, []signer.Algorithm{signer.PS256}},
		"RSA of any size, no limits": {mechanisms{p11.CKM_RSA_PKCS_KEY_PAIR_GEN: {}, p11.CKM_RSA_PKCS: {}}, pkcs1()},
	} {
		if got := c.has.algorithms(); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

func pkcs1() (all []signer.Algorithm) {
	for _, alg := range signer.Algorithms() {
		if alg.RSABits() != 0 && !isPSS(alg) {
			all = append(all, alg)
		}
	}
	return all
}

func TestATokenWhosePINIsAtRiskIsLeftAlone(t *testing.T) {
	for flags, want := range map[uint]signer.Code{
		p11.CKF_USER_PIN_FINAL_TRY: signer.Denied,
		p11.CKF_USER_PIN_LOCKED:    signer.Denied,
	} {
		err := checkToken(p11.TokenInfo{Flags: flags}, tokenID{label: "l"})
		if _, latched := errors.AsType[*pinError](err); !latched || codeOf(err) != want {
			t.Errorf("flags %x: %v", flags, err)
		}
	}
	if err := checkToken(p11.TokenInfo{Flags: p11.CKF_USER_PIN_COUNT_LOW}, tokenID{label: "l"}); err != nil {
		t.Errorf("after one wrong try: %v", err)
	}
	if err := checkToken(p11.TokenInfo{MaxRwSessionCount: 1}, tokenID{label: "l"}); codeOf(err) != signer.Misconfigured {
		t.Errorf("with one session: %v", err)
	}
}
