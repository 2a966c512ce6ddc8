//go:build !cgo

package pkcs11

import (
	"context"

	"github.com/zonemint/zonemint/signer"
)

// Modules stands for the PKCS#11 libraries in builds that can load none.
type Modules struct{}

// Backend is what a build with cgo has.
type Backend struct{ signer.Backend }

// Open fails: PKCS#11 libraries are loaded with cgo.
func (*Modules) Open(_ context.Context, opts Options) (*Backend, error) {
	if _, err := opts.complete(); err != nil {
		return nil, err
	}
	return nil, failf(signer.Misconfigured, "this build has no PKCS#11: it was built without cgo; "+
		"build zonemint with CGO_ENABLED=1 and a C compiler, and run it where glibc is, or use another backend")
}

// Stats returns none.
func (*Modules) Stats() []Stats { return nil }
