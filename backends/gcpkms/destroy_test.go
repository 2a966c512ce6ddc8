package gcpkms_test

import (
	"strings"
	"testing"
	"time"

	"cloud.google.com/go/kms/apiv1/kmspb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/zonemint/zonemint/integration/gcpkmsdouble"
	"github.com/zonemint/zonemint/signer"
)

// A key whose destruction is scheduled cannot sign, is not found, not listed and not
// made again; to destroy it again is no failure, then and when it is gone.
func TestADestroyedKeyIsGone(t *testing.T) {
	var c clock
	d := gcpkmsdouble.Start(t, gcpkmsdouble.Options{Now: c.now})
	b, spec := open(t, settings(d)), newSpec(signer.ES256)
	ref, key := made(t, b, spec)
	for _, want := range []kmspb.CryptoKeyVersion_CryptoKeyVersionState{
		kmspb.CryptoKeyVersion_DESTROY_SCHEDULED, kmspb.CryptoKeyVersion_DESTROY_SCHEDULED, kmspb.CryptoKeyVersion_DESTROYED,
	} {
		if want == kmspb.CryptoKeyVersion_DESTROYED {
			c.pass(31 * 24 * time.Hour)
		}
		if err := signer.Destroy(t.Context(), b, spec, ref); err != nil {
			t.Fatal(err)
		}
		if got := labelled(d, spec)[0].Versions[0].State; got != want {
			t.Errorf("it is %s, want %s", got, want)
		}
		if err := key.Probe(t.Context()); signer.CodeOf(err) != signer.NotFound {
			t.Errorf("signing: %v", err)
		}
		if refs, err := signer.Find(t.Context(), b, spec); err != nil || len(refs) != 0 {
			t.Errorf("found %q, %v", refs, err)
		}
		err := signer.List(t.Context(), b, func(l signer.Labelled) error { t.Errorf("listed %+v", l); return nil })
		if err != nil {
			t.Error(err)
		}
		if _, err := signer.Create(t.Context(), b, spec); signer.CodeOf(err) != signer.Misconfigured {
			t.Errorf("made again: %v", err)
		}
	}
	if n := len(labelled(d, spec)[0].Versions); n != 1 {
		t.Errorf("there are %d versions", n)
	}
}

// A key that somebody has disabled, or restored, is there and says why it does not
// sign. It can be destroyed.
func TestADisabledKeyIsThere(t *testing.T) {
	d := gcpkmsdouble.Start(t, gcpkmsdouble.Options{})
	b, spec := open(t, settings(d)), newSpec(signer.ES256)
	ref, key := made(t, b, spec)
	if err := signer.Destroy(t.Context(), b, spec, ref); err != nil {
		t.Fatal(err)
	}
	ctx, c := api(t, d)
	if _, err := c.RestoreCryptoKeyVersion(ctx, &kmspb.RestoreCryptoKeyVersionRequest{Name: string(ref)}); err != nil {
		t.Fatal(err)
	}
	if err := key.Probe(t.Context()); signer.CodeOf(err) != signer.Denied {
		t.Errorf("signing: %v", err)
	}
	if refs, err := signer.Find(t.Context(), b, spec); err != nil || len(refs) != 1 {
		t.Errorf("found %q, %v", refs, err)
	}
	if err := signer.Destroy(t.Context(), b, spec, ref); err != nil {
		t.Error(err)
	}
}

// A pending key cannot be destroyed yet, and is waited for.
func TestAPendingKeyIsDestroyedWhenItIsMade(t *testing.T) {
	var c clock
	d := gcpkmsdouble.Start(t, gcpkmsdouble.Options{Generation: time.Hour, Now: c.now})
	b, spec := open(t, settings(d)), newSpec(signer.ES256)
	ref := abandoned(t, d, b, spec)
	done := make(chan error, 1)
	go func() { done <- signer.Destroy(t.Context(), b, spec, ref) }()
	await(t, func() bool { return d.Calls("DestroyCryptoKeyVersion") > 1 })
	c.pass(time.Hour)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if got := labelled(d, spec)[0].Versions[0].State; got != kmspb.CryptoKeyVersion_DESTROY_SCHEDULED {
		t.Errorf("it is %s", got)
	}
}

// Organizations can forbid to destroy keys that are enabled: that is said, and not
// tried for long.
func TestAPolicyForbidsDestroying(t *testing.T) {
	d := gcpkmsdouble.Start(t, gcpkmsdouble.Options{})
	b, spec := open(t, settings(d)), newSpec(signer.ES256)
	ref, _ := made(t, b, spec)
	d.Inject(gcpkmsdouble.Fault{Op: "DestroyCryptoKeyVersion", Err: status.Error(codes.FailedPrecondition, "The policy forbids it.")})
	if err := signer.Destroy(t.Context(), b, spec, ref); signer.CodeOf(err) != signer.Misconfigured || !strings.Contains(err.Error(), "The policy forbids it.") {
		t.Error(err)
	}
	if n := d.Calls("DestroyCryptoKeyVersion"); n != 2 {
		t.Errorf("it was asked for %d times, want 2", n)
	}
}

func TestDestroyingWhatIsNotThere(t *testing.T) {
	d := gcpkmsdouble.Start(t, gcpkmsdouble.Options{})
	b := open(t, settings(d))
	spec := newSpec(signer.ES256)
	ref := signer.Ref(spec.Label + " dataplane/default 3 ES256 " + gcpkmsdouble.KeyRing + "/cryptoKeys/nobodys/cryptoKeyVersions/1")
	if err := signer.Destroy(t.Context(), b, spec, ref); signer.CodeOf(err) != signer.NotFound {
		t.Error(err)
	}
	ours, _ := made(t, b, newSpec(signer.ES256))
	before := d.Calls("")
	if err := signer.Destroy(t.Context(), b, newSpec(signer.ES256), ours); signer.CodeOf(err) != signer.NotFound {
		t.Error(err)
	}
	if d.Calls("") != before {
		t.Error("a key of another spec was asked for")
	}
}

// A refusal to destroy is passed over only for keys that are gone, or are about to be.
func TestWhatCannotBeDestroyedIsNotDone(t *testing.T) {
	for state := range kmspb.CryptoKeyVersion_CryptoKeyVersionState_name {
		state := kmspb.CryptoKeyVersion_CryptoKeyVersionState(state)
		want, done := signer.Misconfigured, false
		switch state {
		case kmspb.CryptoKeyVersion_DESTROYED, kmspb.CryptoKeyVersion_DESTROY_SCHEDULED, kmspb.CryptoKeyVersion_PENDING_EXTERNAL_DESTRUCTION,
			kmspb.CryptoKeyVersion_GENERATION_FAILED, kmspb.CryptoKeyVersion_IMPORT_FAILED:
			done = true
		case kmspb.CryptoKeyVersion_PENDING_IMPORT:
			want = signer.Unavailable
		case kmspb.CryptoKeyVersion_PENDING_GENERATION:
			continue // it is waited for
		default:
		}
		t.Run(state.String(), func(t *testing.T) {
			d := gcpkmsdouble.Start(t, gcpkmsdouble.Options{})
			b, spec := open(t, settings(d)), newSpec(signer.ES256)
			ref, _ := made(t, b, spec)
			d.Inject(gcpkmsdouble.Fault{Op: "DestroyCryptoKeyVersion", Err: status.Error(codes.FailedPrecondition, "state must be one of ENABLED or DISABLED in order to destroy")})
			d.Inject(gcpkmsdouble.Fault{Op: "GetCryptoKeyVersion", Answer: sent(func(v *kmspb.CryptoKeyVersion) { v.State = state })})
			err := signer.Destroy(t.Context(), b, spec, ref)
			if done != (err == nil) || err != nil && signer.CodeOf(err) != want {
				t.Errorf("%v", err)
			}
		})
	}
}
