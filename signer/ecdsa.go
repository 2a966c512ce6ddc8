package signer

import (
	"crypto/elliptic"
	"errors"
	"math/big"

	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"
)

var errBadDER = errors.New("not a DER-encoded ECDSA signature")

// concatRS converts an ECDSA signature from ASN.1 DER, SEQUENCE { r, s INTEGER },
// to the form of RFC 7518 section 3.4: R and S as big-endian integers, each
// padded to the size of the curve. Anything but one complete, positive,
// minimally encoded pair below the curve's order is refused.
func concatRS(der []byte, curve elliptic.Curve) ([]byte, error) {
	var (
		r, s  = new(big.Int), new(big.Int)
		inner cryptobyte.String
	)
	in := cryptobyte.String(der)
	if !in.ReadASN1(&inner, asn1.SEQUENCE) || !in.Empty() ||
		!inner.ReadASN1Integer(r) || !inner.ReadASN1Integer(s) || !inner.Empty() {
		return nil, errBadDER
	}
	order := curve.Params().N
	if r.Sign() <= 0 || s.Sign() <= 0 || r.Cmp(order) >= 0 || s.Cmp(order) >= 0 {
		return nil, errors.New("ECDSA signature is outside the curve's order")
	}
	size := (curve.Params().BitSize + 7) / 8
	out := make([]byte, 2*size)
	r.FillBytes(out[:size])
	s.FillBytes(out[size:])
	return out, nil
}
