package pkcs11

import (
	"errors"
	"fmt"

	"github.com/zonemint/zonemint/signer"
)

// codedError is a failure whose kind is known where it happens.
type codedError struct {
	code signer.Code
	err  error
}

func (e *codedError) Error() string { return e.err.Error() }
func (e *codedError) Unwrap() error { return e.err }

func failf(code signer.Code, format string, args ...any) error {
	return &codedError{code, fmt.Errorf(format, args...)}
}

// known returns the code of an error that this package made.
func known(err error) (signer.Code, bool) {
	if coded, ok := errors.AsType[*codedError](err); ok {
		return coded.code, true
	}
	return signer.Unknown, false
}
