//go:build cgo

package integration

import (
	"crypto"
	"testing"
	"time"

	"github.com/eclipse-keypont/crypto11"
)

// newCrypto11Key makes an RSA key in an HSM whose module this process loads.
func newCrypto11Key(t *testing.T, module string) crypto.Signer {
	t.Helper()
	c, err := crypto11.Configure(&crypto11.Config{
		Path: module, TokenLabel: "zonemint", Pin: hsmPIN, MaxSessions: askers + 1, PoolWaitTimeout: 10 * time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { shut(c) })
	key, err := c.GenerateRSAKeyPair([]byte("direct"), 2048)
	if err != nil {
		t.Fatal(err)
	}
	return key
}
