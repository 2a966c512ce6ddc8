package signer

import (
	"context"
	"errors"
)

// Custody says how private keys are kept, from the weakest to the strongest. What a
// backend declares is what its configuration asks for; an HSM that is software
// cannot be told from one that is not.
type Custody int

// The kinds of custody.
const (
	// CustodyProcess: the private key passes through the memory of this process.
	CustodyProcess Custody = iota
	// CustodyService: another service signs, in software as far as is known.
	CustodyService
	// CustodyHardware: the private key is made in hardware that does not let it out.
	CustodyHardware
)

func (c Custody) String() string {
	switch c {
	case CustodyProcess:
		return "in the server's process"
	case CustodyService:
		return "in another service"
	case CustodyHardware:
		return "in hardware"
	default:
		return "unknown"
	}
}

// Attester is a [Backend] whose keys come with a statement of their hardware.
type Attester interface {
	// Attest returns what the backend can prove of where the key behind ref lives,
	// as JSON in a form of its own; nil if it can prove nothing of this key.
	Attest(ctx context.Context, spec Spec, ref Ref) ([]byte, error)
}

// Attest returns what b proves of a key; nil if it proves nothing.
func Attest(ctx context.Context, b Backend, spec Spec, ref Ref) ([]byte, error) {
	const op = "attest"
	a, ok := bare(b).(Attester)
	if !ok {
		return nil, nil
	}
	if err := ctx.Err(); err != nil {
		return nil, coded(ctx, op, b, err)
	}
	text, err := a.Attest(ctx, spec, ref)
	if err != nil {
		return nil, coded(ctx, op, b, err)
	}
	return text, nil
}

// PermissionError is what a driver returns where the backend says which permission
// its credential lacks.
type PermissionError interface {
	error
	// Permission is the backend's own name of it, such as "kms:Sign".
	Permission() string
}

// MissingPermission returns the name of the permission that a failure was about;
// empty if the backend did not say.
func MissingPermission(err error) string {
	if e, ok := errors.AsType[PermissionError](err); ok {
		return e.Permission()
	}
	return ""
}
