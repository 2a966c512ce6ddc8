package gcpkms_test

import (
	"strings"
	"testing"
	"time"

	"github.com/zonemint/zonemint/backends/check"
	"github.com/zonemint/zonemint/backends/gcpkms"
	"github.com/zonemint/zonemint/integration/gcpkmsdouble"
	"github.com/zonemint/zonemint/signer"
)

// steps writes what a check tried, such as "create ok, sign denied", and its hints.
func steps(t *testing.T, b signer.Backend) (outcome, hints string) {
	t.Helper()
	var texts []string
	for _, s := range check.Run(t.Context(), b, check.Options{Algorithm: signer.ES256, Signatures: 2}) {
		what := "ok"
		if s.Err != nil {
			what = signer.CodeOf(s.Err).String()
		}
		texts = append(texts, s.Name+" "+what)
		hints += s.Hint
	}
	return strings.Join(texts, ", "), hints
}

// Whichever of the permissions is missing, "zonemint backend check" says its name.
func TestCheckNamesTheMissingPermission(t *testing.T) {
	for _, bare := range []bool{false, true} {
		for permission, want := range map[string]string{
			"":                                "create ok, find ok, public ok, sign ok, destroy ok",
			"cloudkms.cryptoKeys.create":      "create denied",
			"cloudkms.cryptoKeyVersions.list": "create denied",
			"cloudkms.cryptoKeyVersions.get":  "create denied, destroy ok",
			"cloudkms.cryptoKeyVersions.viewPublicKey": "create ok, find ok, public denied, destroy ok",
			"cloudkms.cryptoKeyVersions.useToSign":     "create ok, find ok, public ok, sign denied, destroy ok",
			"cloudkms.cryptoKeyVersions.destroy":       "create ok, find ok, public ok, sign ok, destroy denied",
		} {
			t.Run(permission, func(t *testing.T) {
				d := gcpkmsdouble.Start(t, gcpkmsdouble.Options{BareDenials: bare, Generation: 20 * time.Millisecond})
				d.Deny(permission)
				outcome, hints := steps(t, open(t, settings(d)))
				if outcome != want {
					t.Errorf("%s, want %s", outcome, want)
				}
				if permission != "" && !strings.Contains(hints, "lacks the permission "+permission+",") {
					t.Errorf("it says %q", hints)
				}
			})
		}
	}
}

// Permissions that only some calls need are named as well.
func TestRareCallsNameTheMissingPermission(t *testing.T) {
	ctx := t.Context()
	for permission, call := range map[string]func(*gcpkmsdouble.Server, *gcpkms.Backend, signer.Spec, signer.Ref) error{
		"cloudkms.cryptoKeys.list": func(_ *gcpkmsdouble.Server, b *gcpkms.Backend, _ signer.Spec, _ signer.Ref) error {
			return signer.List(ctx, b, func(signer.Labelled) error { return nil })
		},
		"cloudkms.cryptoKeyVersions.create": func(d *gcpkmsdouble.Server, b *gcpkms.Backend, _ signer.Spec, _ signer.Ref) error {
			d.FailGenerations(1)
			_, err := signer.Create(ctx, b, newSpec(signer.ES256))
			return err
		},
		"cloudkms.cryptoKeyVersions.get": func(_ *gcpkmsdouble.Server, b *gcpkms.Backend, spec signer.Spec, ref signer.Ref) error {
			_, err := signer.Attest(ctx, b, spec, ref)
			return err
		},
	} {
		d := gcpkmsdouble.Start(t, gcpkmsdouble.Options{})
		b, spec := open(t, settings(d)), newSpec(signer.ES256)
		ref, _ := made(t, b, spec)
		d.Deny(permission)
		if err := call(d, b, spec, ref); signer.CodeOf(err) != signer.Denied || signer.MissingPermission(err) != permission {
			t.Errorf("%s: %v names %q", permission, err, signer.MissingPermission(err))
		}
	}
}

// Whether a key is destroyed already takes a look, and so the right to one.
func TestDestroyingAgainWithoutTheRightToLook(t *testing.T) {
	d := gcpkmsdouble.Start(t, gcpkmsdouble.Options{})
	b, spec := open(t, settings(d)), newSpec(signer.ES256)
	ref, _ := made(t, b, spec)
	if err := signer.Destroy(t.Context(), b, spec, ref); err != nil {
		t.Fatal(err)
	}
	d.Deny("cloudkms.cryptoKeyVersions.get")
	if err := signer.Destroy(t.Context(), b, spec, ref); signer.CodeOf(err) != signer.Denied || signer.MissingPermission(err) != "cloudkms.cryptoKeyVersions.get" {
		t.Errorf("%v", err)
	}
}
