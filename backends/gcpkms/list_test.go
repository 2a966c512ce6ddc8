package gcpkms_test

import (
	"testing"

	"cloud.google.com/go/kms/apiv1/kmspb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/zonemint/zonemint/integration/gcpkmsdouble"
	"github.com/zonemint/zonemint/signer"
)

// All pages are read, and what is said of a key is what it was made for, whatever
// somebody has done to its labels.
func TestListsAllPages(t *testing.T) {
	d := gcpkmsdouble.Start(t, gcpkmsdouble.Options{MaxPage: 2})
	b := open(t, settings(d))
	want := map[string]signer.Spec{}
	for i := range 5 {
		spec := newSpec(signer.ES256)
		spec.Serial = i + 1
		made(t, b, spec)
		want[spec.Label] = spec
		plant(t, d, &kmspb.CryptoKey{Purpose: kmspb.CryptoKey_ENCRYPT_DECRYPT})
	}
	list := func() map[string]signer.Labelled {
		all := map[string]signer.Labelled{}
		err := signer.List(t.Context(), b, func(l signer.Labelled) error { all[l.Label] = l; return nil })
		if err != nil {
			t.Fatal(err)
		}
		return all
	}
	got := list()
	for label, spec := range want {
		if l := got[label]; l.Keyset != spec.Keyset || l.Serial != spec.Serial || l.CreatedAt.IsZero() {
			t.Errorf("listed as %+v, want %+v", l, spec)
		}
	}
	if len(got) != len(want) {
		t.Errorf("listed %d, want %d", len(got), len(want))
	}
	d.Inject(gcpkmsdouble.Fault{Op: "ListCryptoKeys", Answer: sent(func(r *kmspb.ListCryptoKeysResponse) {
		for _, k := range r.GetCryptoKeys() {
			k.Labels = map[string]string{"zonemint-keyset": "zone", "zonemint-serial": "9"}
		}
	})})
	for label, l := range list() {
		if _, ok := want[label]; !ok || l.Keyset != "" || l.Serial != 0 {
			t.Errorf("with changed labels: listed as %+v", l)
		}
	}
}

// A page that fails ends the listing: what is missing is not taken for gone.
func TestAListingThatFailsIsNoListing(t *testing.T) {
	d := gcpkmsdouble.Start(t, gcpkmsdouble.Options{MaxPage: 1})
	b := open(t, settings(d))
	for range 3 {
		made(t, b, newSpec(signer.ES256))
	}
	for _, op := range []string{"ListCryptoKeys", "ListCryptoKeyVersions"} {
		heal := d.Inject(gcpkmsdouble.Fault{Op: op, Apply: true, Err: status.Error(codes.Unavailable, "lost")})
		err := signer.List(t.Context(), b, func(signer.Labelled) error { return nil })
		if signer.CodeOf(err) != signer.Unavailable {
			t.Errorf("%s: %v", op, err)
		}
		heal()
	}
}

// Keys can be deleted once their versions are destroyed.
func TestAKeyThatVanishesMeanwhileIsPassedOver(t *testing.T) {
	d := gcpkmsdouble.Start(t, gcpkmsdouble.Options{})
	b := open(t, settings(d))
	made(t, b, newSpec(signer.ES256))
	d.Inject(gcpkmsdouble.Fault{Op: "ListCryptoKeyVersions", Err: status.Error(codes.NotFound, "CryptoKey x not found.")})
	if err := signer.List(t.Context(), b, func(l signer.Labelled) error { t.Errorf("%+v", l); return nil }); err != nil {
		t.Error(err)
	}
}
