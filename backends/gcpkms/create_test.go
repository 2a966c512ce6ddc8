package gcpkms_test

import (
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"cloud.google.com/go/kms/apiv1/kmspb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/zonemint/zonemint/integration/gcpkmsdouble"
	"github.com/zonemint/zonemint/signer"
)

func TestAKeySaysWhatItIs(t *testing.T) {
	d := gcpkmsdouble.Start(t, gcpkmsdouble.Options{})
	o := settings(d)
	o.DestroyScheduledDuration = 48 * time.Hour
	spec := newSpec(signer.ES256)
	ref, _ := made(t, open(t, o), spec)
	keys := labelled(d, spec)
	if len(keys) != 1 {
		t.Fatalf("%d keys", len(keys))
	}
	want := map[string]string{
		"zonemint-label": spec.Label, "zonemint-keyset": "dataplane_default", "zonemint-serial": "3", "zonemint-algorithm": "es256",
	}
	for name, value := range want {
		if got := keys[0].Labels[name]; got != value {
			t.Errorf("label %s is %q, want %q", name, got, value)
		}
	}
	if !strings.HasPrefix(keys[0].ID, spec.Label+"-") || string(ref) != keys[0].Name+"/cryptoKeyVersions/1" {
		t.Errorf("ID %s, reference %s", keys[0].ID, ref)
	}
	ctx, c := api(t, d)
	key, err := c.GetCryptoKey(ctx, &kmspb.GetCryptoKeyRequest{Name: keys[0].Name})
	if err != nil {
		t.Fatal(err)
	}
	if key.GetDestroyScheduledDuration().AsDuration() != 48*time.Hour || key.GetVersionTemplate().GetProtectionLevel() != kmspb.ProtectionLevel_HSM {
		t.Errorf("made as %v", key)
	}
}

// A keyset whose name is no value of a label has a key all the same.
func TestALongKeysetHasAKey(t *testing.T) {
	d := gcpkmsdouble.Start(t, gcpkmsdouble.Options{})
	b := open(t, settings(d))
	spec := newSpec(signer.ES256)
	spec.Keyset = "dataplane/" + strings.Repeat("m", 63)
	made(t, b, spec)
	if keys := labelled(d, spec); len(keys) != 1 || keys[0].Labels["zonemint-keyset"] != "" {
		t.Errorf("%v", keys)
	}
	err := signer.List(t.Context(), b, func(l signer.Labelled) error {
		if l.Label != spec.Label || l.Keyset != "" || l.Serial != 0 {
			t.Errorf("listed as %+v", l)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// Whatever is lost when, creating again and looking end in one key.
func TestOneKeyWhateverIsLost(t *testing.T) {
	lost := status.Error(codes.Unavailable, "lost")
	for name, f := range map[string]gcpkmsdouble.Fault{
		"the request":          {Op: "CreateCryptoKey", Err: lost},
		"the answer":           {Op: "CreateCryptoKey", Err: lost, Apply: true},
		"the connection":       {Op: "CreateCryptoKey", Cut: true, Apply: true},
		"the first look":       {Op: "ListCryptoKeyVersions", Err: lost},
		"the look, cut":        {Op: "ListCryptoKeyVersions", Cut: true, Apply: true},
		"in internal words":    {Op: "CreateCryptoKey", Err: status.Error(codes.Internal, "lost"), Apply: true},
		"by a proxy's timeout": {Op: "CreateCryptoKey", Err: status.Error(codes.DeadlineExceeded, "lost"), Apply: true},
	} {
		t.Run(name, func(t *testing.T) {
			d := gcpkmsdouble.Start(t, gcpkmsdouble.Options{Generation: 20 * time.Millisecond})
			b, spec := open(t, settings(d)), newSpec(signer.ES256)
			f.Times = 1
			d.Inject(f)
			if _, err := signer.Create(t.Context(), b, spec); signer.CodeOf(err) != signer.Unavailable {
				t.Fatalf("%v, want unavailable", err)
			}
			refs, err := signer.Find(t.Context(), b, spec)
			for signer.CodeOf(err) == signer.Unavailable && t.Context().Err() == nil { // the connection is being made anew
				refs, err = signer.Find(t.Context(), b, spec)
			}
			if err != nil || len(refs) > 1 {
				t.Fatalf("found %q, %v", refs, err)
			}
			ref, err := signer.Create(t.Context(), b, spec)
			if err != nil {
				t.Fatal(err)
			}
			if len(refs) == 1 && !signer.SameRef(ref, refs[0]) {
				t.Errorf("found %q, made %q", refs[0], ref)
			}
			if keys := labelled(d, spec); len(keys) != 1 || len(keys[0].Versions) != 1 {
				t.Errorf("%+v", keys)
			}
		})
	}
}

// Whoever leaves while a key is pending, finds it: it is then waited for before its
// public half is read, as others do that have not made it.
func TestAPendingKeyIsWaitedFor(t *testing.T) {
	var c clock
	d := gcpkmsdouble.Start(t, gcpkmsdouble.Options{Generation: time.Hour, Now: c.now})
	b, spec := open(t, settings(d)), newSpec(signer.ES256)
	ref := abandoned(t, d, b, spec)
	refs, err := signer.Find(t.Context(), b, spec)
	if err != nil || len(refs) != 1 || !signer.SameRef(refs[0], ref) {
		t.Fatalf("found %q, %v", refs, err)
	}
	done := make(chan error, 1)
	go func() {
		key, err := signer.Open(t.Context(), b, spec, ref, nil)
		if err == nil {
			err = key.Probe(t.Context())
		}
		done <- err
	}()
	await(t, func() bool { return d.Calls("GetPublicKey") > 1 })
	c.pass(time.Hour)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// A signature waits for nothing.
func TestSigningDoesNotWaitForAPendingKey(t *testing.T) {
	d := gcpkmsdouble.Start(t, gcpkmsdouble.Options{Generation: time.Hour})
	b, spec := open(t, settings(d)), newSpec(signer.ES256)
	h, err := b.Open(t.Context(), spec, abandoned(t, d, b, spec))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.Sign(t.Context(), spec.Algorithm, make([]byte, 32)); b.Code(err) != signer.Unavailable || d.Calls("AsymmetricSign") != 1 {
		t.Errorf("%v, after %d requests", err, d.Calls("AsymmetricSign"))
	}
}

func TestGenerationTimeoutEndsTheWait(t *testing.T) {
	d := gcpkmsdouble.Start(t, gcpkmsdouble.Options{Generation: time.Hour})
	o := settings(d)
	o.GenerationTimeout = 100 * time.Millisecond
	spec := newSpec(signer.ES256)
	_, err := signer.Create(t.Context(), open(t, o), spec)
	if signer.CodeOf(err) != signer.Unavailable || !strings.Contains(err.Error(), "still being generated after 100ms") {
		t.Error(err)
	}
}

// A version that could not be generated is replaced by the next one of the same key,
// after a look, whether or not the process that asked for it is still there.
func TestAFailedGenerationIsReplaced(t *testing.T) {
	for name, again := range map[string]bool{"at once": false, "by the next process": true} {
		t.Run(name, func(t *testing.T) {
			d := gcpkmsdouble.Start(t, gcpkmsdouble.Options{})
			b, spec := open(t, settings(d)), newSpec(signer.ES256)
			d.FailGenerations(1)
			if again {
				heal := d.Inject(gcpkmsdouble.Fault{Op: "CreateCryptoKey", Err: status.Error(codes.Unavailable, "lost"), Apply: true})
				if _, err := signer.Create(t.Context(), b, spec); err == nil {
					t.Fatal("the answer was to be lost")
				}
				heal()
				refs, err := signer.Find(t.Context(), b, spec)
				for err == nil && len(refs) > 0 { // while it is pending
					refs, err = signer.Find(t.Context(), b, spec)
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			ref, key := made(t, b, spec)
			if err := key.Probe(t.Context()); err != nil {
				t.Error(err)
			}
			keys := labelled(d, spec)
			if len(keys) != 1 || len(keys[0].Versions) != 2 || string(ref) != keys[0].Versions[1].Name {
				t.Errorf("made %s, there are %+v", ref, keys)
			}
			refs, err := signer.Find(t.Context(), b, spec)
			if err != nil || len(refs) != 1 || !signer.SameRef(refs[0], ref) {
				t.Errorf("found %q, %v", refs, err)
			}
			if d.Calls("CreateCryptoKeyVersion") != 1 {
				t.Errorf("%d versions were asked for", d.Calls("CreateCryptoKeyVersion"))
			}
		})
	}
}

func TestGenerationThatGoesOnFailingIsGivenUp(t *testing.T) {
	d := gcpkmsdouble.Start(t, gcpkmsdouble.Options{})
	d.FailGenerations(100)
	_, err := signer.Create(t.Context(), open(t, settings(d)), newSpec(signer.ES256))
	if signer.CodeOf(err) != signer.Unavailable || !strings.Contains(err.Error(), "could not be generated") {
		t.Error(err)
	}
	if n := d.Calls("CreateCryptoKeyVersion"); n != 3 {
		t.Errorf("%d versions were asked for, want 3", n)
	}
}

// Looking comes before making, also for a version whose request may have been lost.
func TestALostVersionIsLookedForFirst(t *testing.T) {
	d := gcpkmsdouble.Start(t, gcpkmsdouble.Options{})
	b, spec := open(t, settings(d)), newSpec(signer.ES256)
	d.FailGenerations(1)
	d.Inject(gcpkmsdouble.Fault{Op: "CreateCryptoKeyVersion", Times: 1, Err: status.Error(codes.Unavailable, "lost"), Apply: true})
	if _, err := signer.Create(t.Context(), b, spec); signer.CodeOf(err) != signer.Unavailable {
		t.Fatal(err)
	}
	ref, err := signer.Create(t.Context(), b, spec)
	if err != nil {
		t.Fatal(err)
	}
	if keys := labelled(d, spec); len(keys) != 1 || len(keys[0].Versions) != 2 || string(ref) != keys[0].Versions[1].Name {
		t.Errorf("made %s, there are %+v", ref, keys)
	}
}

// A key without a version, which only somebody else can have made, is not taken, and
// no versions are made of it.
func TestAKeyWithoutAVersionIsNotTaken(t *testing.T) {
	d := gcpkmsdouble.Start(t, gcpkmsdouble.Options{})
	b, spec := open(t, settings(d)), newSpec(signer.ES256)
	d.Inject(gcpkmsdouble.Fault{Op: "CreateCryptoKey", Asked: sent(func(r *kmspb.CreateCryptoKeyRequest) { r.SkipInitialVersionCreation = true })})
	if _, err := signer.Create(t.Context(), b, spec); signer.CodeOf(err) != signer.Misconfigured || !strings.Contains(err.Error(), "has no version") {
		t.Error(err)
	}
	if n := d.Calls("CreateCryptoKeyVersion"); n != 0 {
		t.Errorf("%d versions were asked for", n)
	}
}

// Of several versions that can sign, the one with the lowest number is the key, for
// whoever makes it and whoever looks for it, in whatever order they are listed.
func TestTheFirstOfSeveralVersionsIsTheKey(t *testing.T) {
	d := gcpkmsdouble.Start(t, gcpkmsdouble.Options{MaxPage: 4})
	b, spec := open(t, settings(d)), newSpec(signer.ES256)
	d.FailGenerations(1)
	ref, _ := made(t, b, spec)
	ctx, c := api(t, d)
	key := labelled(d, spec)[0].Name
	for range 9 {
		if _, err := c.CreateCryptoKeyVersion(ctx, &kmspb.CreateCryptoKeyVersionRequest{Parent: key, CryptoKeyVersion: &kmspb.CryptoKeyVersion{}}); err != nil {
			t.Fatal(err)
		}
	}
	d.Inject(gcpkmsdouble.Fault{Op: "ListCryptoKeyVersions", Answer: sent(func(r *kmspb.ListCryptoKeyVersionsResponse) {
		slices.SortFunc(r.CryptoKeyVersions, func(a, b *kmspb.CryptoKeyVersion) int { return strings.Compare(b.GetName(), a.GetName()) })
	})})
	want := key + "/cryptoKeyVersions/2"
	if string(ref) != want {
		t.Errorf("made %s, want %s", ref, want)
	}
	refs, err := signer.Find(t.Context(), b, spec)
	if err != nil || len(refs) != 1 || string(refs[0]) != want {
		t.Errorf("found %q, %v", refs, err)
	}
	again, err := signer.Create(t.Context(), b, spec)
	if err != nil || string(again) != want {
		t.Errorf("made %q, %v", again, err)
	}
	listed := 0
	if err := signer.List(t.Context(), b, func(signer.Labelled) error { listed++; return nil }); err != nil || listed != 10 {
		t.Errorf("%d are listed, %v", listed, err)
	}
}

func TestTwoProcessesMakeOneKey(t *testing.T) {
	d := gcpkmsdouble.Start(t, gcpkmsdouble.Options{Generation: 30 * time.Millisecond, Visibility: 50 * time.Millisecond})
	spec := newSpec(signer.ES256)
	refs := make([]signer.Ref, 4)
	var wg sync.WaitGroup
	for i := range refs {
		wg.Go(func() {
			ref, err := signer.Create(t.Context(), open(t, settings(d)), spec)
			if err != nil {
				t.Error(err)
			}
			refs[i] = ref
		})
	}
	wg.Wait()
	for _, ref := range refs {
		if !signer.SameRef(ref, refs[0]) {
			t.Errorf("made %q", refs)
		}
	}
	if keys := labelled(d, spec); len(keys) != 1 || len(keys[0].Versions) != 1 {
		t.Errorf("%+v", keys)
	}
}

// What is there under the ID and is something else is not taken.
func TestAKeyThatIsNotWhatWasMadeIsAnIncident(t *testing.T) {
	for name, change := range map[string]func(*kmspb.CryptoKeyVersion){
		"for another algorithm": func(v *kmspb.CryptoKeyVersion) { v.Algorithm = kmspb.CryptoKeyVersion_RSA_SIGN_PKCS1_2048_SHA256 },
		"in software":           func(v *kmspb.CryptoKeyVersion) { v.ProtectionLevel = kmspb.ProtectionLevel_SOFTWARE },
		"of another key":        func(v *kmspb.CryptoKeyVersion) { v.Name = strings.Replace(v.GetName(), "zonemint-", "zonemind-", 1) },
	} {
		t.Run(name, func(t *testing.T) {
			d := gcpkmsdouble.Start(t, gcpkmsdouble.Options{})
			d.Inject(gcpkmsdouble.Fault{Op: "ListCryptoKeyVersions", Answer: sent(func(r *kmspb.ListCryptoKeyVersionsResponse) {
				for _, v := range r.GetCryptoKeyVersions() {
					change(v)
				}
			})})
			if _, err := signer.Create(t.Context(), open(t, settings(d)), newSpec(signer.ES256)); signer.CodeOf(err) != signer.Corrupt {
				t.Error(err)
			}
		})
	}
}

func TestAMissingKeyRingIsAMisconfiguration(t *testing.T) {
	d := gcpkmsdouble.Start(t, gcpkmsdouble.Options{})
	for _, ring := range []string{
		"projects/zonemint-test/locations/europe-west4/keyRings/other", // exists nowhere
		"projects/zonemint-test/locations/moon/keyRings/mesh",          // nor does the location
	} {
		o := settings(d)
		o.KeyRing = ring
		b := open(t, o)
		if _, err := signer.Create(t.Context(), b, newSpec(signer.ES256)); signer.CodeOf(err) != signer.Misconfigured {
			t.Errorf("create in %s: %v", ring, err)
		}
		if err := signer.List(t.Context(), b, func(signer.Labelled) error { return nil }); signer.CodeOf(err) != signer.Misconfigured {
			t.Errorf("list of %s: %v", ring, err)
		}
	}
}
