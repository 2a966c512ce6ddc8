//go:build !cgo

package pkcs11

import (
	"strings"
	"testing"

	"github.com/zonemint/zonemint/signer"
)

func TestABuildWithoutCgoSaysSo(t *testing.T) {
	var modules Modules
	_, err := modules.Open(t.Context(), Options{Module: "/lib/hsm.so", TokenLabel: "zonemint", PINFile: "/run/pin"})
	wantCode(t, "open", err, signer.Misconfigured)
	if err != nil && !strings.Contains(err.Error(), "CGO_ENABLED=1") {
		t.Errorf("%v: says not what to do", err)
	}
}
