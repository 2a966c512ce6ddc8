//go:build !cgo

package integration

import (
	"crypto"
	"testing"
)

func newCrypto11Key(t *testing.T, _ string) crypto.Signer {
	t.Helper()
	missing(t, "this needs cgo")
	return nil
}
