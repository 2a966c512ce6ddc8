package signer

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Algorithm is a signature algorithm together with the size of key it is used
// with, for example RS256 with a 3072-bit modulus. The zero Algorithm is none.
//
// Its text form, which [Parse] reads and String writes, is the JWS name
// (RFC 7518 section 3.1, RFC 8037), followed for RSA by the modulus length:
// "RS256-2048", "ES256", "EdDSA".
type Algorithm struct {
	jws  string
	bits int // modulus length for RSA, 0 otherwise
}

// The algorithms that zonemint signs with.
var (
	RS256 = Algorithm{"RS256", 2048}

	RS256With3072 = Algorithm{"RS256", 3072}
	RS256With4096 = Algorithm{"RS256", 4096}
	RS384         = Algorithm{"RS384", 3072}
	RS512         = Algorithm{"RS512", 4096}
	PS256         = Algorithm{"PS256", 2048}
	ES256         = Algorithm{"ES256", 0}
	ES384         = Algorithm{"ES384", 0}
	EdDSA         = Algorithm{"EdDSA", 0}
)

// MinRSABits is the shortest RSA modulus that is accepted anywhere.
const MinRSABits = 2048

var rsaBits = []int{2048, 3072, 4096}

// traits is what distinguishes one JWS algorithm from another. Adding a row
// here is all that a new algorithm needs on this side of the driver contract.
type traits struct {
	hash        crypto.Hash // 0: the message itself is signed
	pss         bool
	curve       func() elliptic.Curve
	defaultBits int // 0 unless RSA
}

func traitsOf(jws string) (traits, bool) {
	switch jws {
	case "RS256":
		return traits{hash: crypto.SHA256, defaultBits: 2048}, true
	case "RS384":
		return traits{hash: crypto.SHA384, defaultBits: 3072}, true
	case "RS512":
		return traits{hash: crypto.SHA512, defaultBits: 4096}, true
	case "PS256":
		return traits{hash: crypto.SHA256, pss: true, defaultBits: 2048}, true
	case "ES256":
		return traits{hash: crypto.SHA256, curve: elliptic.P256}, true
	case "ES384":
		return traits{hash: crypto.SHA384, curve: elliptic.P384}, true
	case "EdDSA":
		return traits{}, true
	default:
		return traits{}, false
	}
}

// Names returns the JWS names of all algorithms, in the order in which help
// texts show them.
func Names() []string {
	return []string{"RS256", "RS384", "RS512", "PS256", "ES256", "ES384", "EdDSA"}
}

// Algorithms returns every algorithm, with each size of key that it takes.
func Algorithms() []Algorithm {
	var all []Algorithm
	for _, name := range Names() {
		t, _ := traitsOf(name)
		if t.defaultBits == 0 {
			all = append(all, Algorithm{name, 0})
			continue
		}
		for _, bits := range rsaBits {
			all = append(all, Algorithm{name, bits})
		}
	}
	return all
}

// Parse reads the text form of an algorithm. An RSA algorithm without a
// modulus length gets its usual one: 2048 for RS256 and PS256, 3072 for RS384,
// 4096 for RS512.
func Parse(s string) (Algorithm, error) {
	name, size, sized := strings.Cut(s, "-")
	t, ok := traitsOf(name)
	if !ok {
		return Algorithm{}, fmt.Errorf("unknown signature algorithm %q, want one of %s", s, strings.Join(Names(), ", "))
	}
	if !sized {
		return Algorithm{name, t.defaultBits}, nil
	}
	for _, bits := range rsaBits {
		if t.defaultBits != 0 && size == strconv.Itoa(bits) {
			return Algorithm{name, bits}, nil
		}
	}
	if t.defaultBits == 0 {
		return Algorithm{}, fmt.Errorf("algorithm %s takes no key size, got %q", name, s)
	}
	return Algorithm{}, fmt.Errorf("algorithm %q: RSA keys have 2048, 3072 or 4096 bits", s)
}

// String returns the text form, "none" for the zero Algorithm.
func (a Algorithm) String() string {
	switch {
	case a.jws == "":
		return "none"
	case a.bits != 0:
		return fmt.Sprintf("%s-%d", a.jws, a.bits)
	default:
		return a.jws
	}
}

// JWS returns the value of the "alg" header parameter (RFC 7515 section 4.1.1).
func (a Algorithm) JWS() string { return a.jws }

// RSABits returns the modulus length in bits, 0 for an algorithm that is not RSA.
func (a Algorithm) RSABits() int { return a.bits }

// Curve returns the elliptic curve of an ECDSA algorithm, nil for any other.
func (a Algorithm) Curve() elliptic.Curve {
	if t, _ := traitsOf(a.jws); t.curve != nil {
		return t.curve()
	}
	return nil
}

// Hash returns the hash whose digest is signed. It is 0 for EdDSA, which signs
// the message itself (RFC 8032, PureEdDSA).
func (a Algorithm) Hash() crypto.Hash {
	t, _ := traitsOf(a.jws)
	return t.hash
}

// Opts returns the options that select this algorithm in [crypto.Signer].
// PSS salts are as long as the hash (RFC 7518 section 3.5).
func (a Algorithm) Opts() crypto.SignerOpts {
	t, _ := traitsOf(a.jws)
	if t.pss {
		return &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: t.hash}
	}
	return t.hash
}

// Fits says whether pub is a key that this algorithm can be used with. The
// error names what does not fit.
func (a Algorithm) Fits(pub crypto.PublicKey) error {
	switch pub := pub.(type) {
	case *rsa.PublicKey:
		if a.bits == 0 {
			return fmt.Errorf("algorithm %s does not use RSA keys", a)
		}
		if got := pub.N.BitLen(); got != a.bits {
			return fmt.Errorf("algorithm %s wants a modulus of %d bits, the key has %d", a, a.bits, got)
		}
	case *ecdsa.PublicKey:
		if c := a.Curve(); c == nil || pub.Curve != c {
			return fmt.Errorf("algorithm %s does not use keys on %s", a, pub.Curve.Params().Name)
		}
	case ed25519.PublicKey:
		if a != EdDSA {
			return fmt.Errorf("algorithm %s does not use Ed25519 keys", a)
		}
	default:
		return fmt.Errorf("algorithm %s does not use keys of type %T", a, pub)
	}
	return nil
}

// AlgorithmFor returns the algorithm that zonemint signs with when it is given
// a key and no further wish: RS256 for RSA, ES256 or ES384 by curve, EdDSA.
func AlgorithmFor(pub crypto.PublicKey) (Algorithm, error) {
	candidates := []Algorithm{RS256, RS256With3072, RS256With4096, ES256, ES384, EdDSA}
	i := slices.IndexFunc(candidates, func(a Algorithm) bool { return a.Fits(pub) == nil })
	if i < 0 {
		return Algorithm{}, fmt.Errorf("no signature algorithm for this key (%s)", describe(pub))
	}
	return candidates[i], nil
}

func describe(pub crypto.PublicKey) string {
	switch pub := pub.(type) {
	case *rsa.PublicKey:
		return fmt.Sprintf("RSA, %d bits", pub.N.BitLen())
	case *ecdsa.PublicKey:
		return "ECDSA on " + pub.Curve.Params().Name
	default:
		return fmt.Sprintf("%T", pub)
	}
}

// checkInput reports whether in has the length that a signature of this
// algorithm covers: exactly one digest, or anything for EdDSA.
func (a Algorithm) checkInput(in []byte) error {
	h := a.Hash()
	if h != 0 && len(in) != h.Size() {
		return fmt.Errorf("%s signs %d bytes of %s, got %d", a, h.Size(), h, len(in))
	}
	return nil
}
