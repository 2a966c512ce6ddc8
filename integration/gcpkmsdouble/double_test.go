package gcpkmsdouble

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/pem"
	"hash/crc32"
	"net/url"
	"strings"
	"testing"
	"time"

	"cloud.google.com/go/kms/apiv1/kmspb"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/fieldmaskpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

const (
	ring = KeyRing
	p256 = kmspb.CryptoKeyVersion_EC_SIGN_P256_SHA256
	hsm  = kmspb.ProtectionLevel_HSM
)

// client speaks the protocol itself: no SDK, and headers as the test wants them.
type client struct {
	kmspb.KeyManagementServiceClient
	t *testing.T
}

func connect(t *testing.T, s *Server) client {
	t.Helper()
	conn, err := grpc.NewClient(s.Addr(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return client{kmspb.NewKeyManagementServiceClient(conn), t}
}

// to routes by a field, such as "name=projects/…".
func (c client) to(field, name string) context.Context {
	return metadata.AppendToOutgoingContext(c.t.Context(), "x-goog-request-params", field+"="+url.QueryEscape(name))
}

func want(t *testing.T, what string, err error, code codes.Code, says string) {
	t.Helper()
	if status.Code(err) != code || code != codes.OK && !strings.Contains(err.Error(), says) {
		t.Errorf("%s: %v, want %s and %q", what, err, code, says)
	}
}

func (c client) create(id string, key *kmspb.CryptoKey) (*kmspb.CryptoKey, error) {
	return c.CreateCryptoKey(c.to("parent", ring), &kmspb.CreateCryptoKeyRequest{Parent: ring, CryptoKeyId: id, CryptoKey: key})
}

func (c client) version(name string) *kmspb.CryptoKeyVersion {
	c.t.Helper()
	v, err := c.GetCryptoKeyVersion(c.to("name", name), &kmspb.GetCryptoKeyVersionRequest{Name: name})
	if err != nil {
		c.t.Fatal(err)
	}
	return v
}

// ready creates a key and waits until its first version has left the state pending.
func (c client) ready(id string, key *kmspb.CryptoKey) string {
	c.t.Helper()
	made, err := c.create(id, key)
	if err != nil {
		c.t.Fatal(err)
	}
	name := made.GetName() + "/cryptoKeyVersions/1"
	for c.version(name).GetState() == kmspb.CryptoKeyVersion_PENDING_GENERATION {
	}
	return name
}

func signing(alg kmspb.CryptoKeyVersion_CryptoKeyVersionAlgorithm, level kmspb.ProtectionLevel) *kmspb.CryptoKey {
	return &kmspb.CryptoKey{
		Purpose:         kmspb.CryptoKey_ASYMMETRIC_SIGN,
		VersionTemplate: &kmspb.CryptoKeyVersionTemplate{Algorithm: alg, ProtectionLevel: level},
	}
}

func sum(data []byte) *wrapperspb.Int64Value {
	return wrapperspb.Int64(int64(crc32.Checksum(data, crc32.MakeTable(crc32.Castagnoli))))
}

func sha256Digest(text string) *kmspb.Digest {
	d := sha256.Sum256([]byte(text))
	return &kmspb.Digest{Digest: &kmspb.Digest_Sha256{Sha256: d[:]}}
}

func TestRefusesKeys(t *testing.T) {
	c := connect(t, Start(t, Options{}))
	change := func(f func(*kmspb.CryptoKey)) *kmspb.CryptoKey {
		k := signing(p256, hsm)
		f(k)
		return k
	}
	many := map[string]string{}
	for i := range 65 {
		many["l"+strings.Repeat("x", i)] = ""
	}
	for name, test := range map[string]struct {
		id   string
		key  *kmspb.CryptoKey
		code codes.Code
		says string
	}{
		"no ID":                           {"", signing(p256, hsm), codes.InvalidArgument, "crypto_key_id"},
		"an ID of 64 characters":          {strings.Repeat("k", 64), signing(p256, hsm), codes.InvalidArgument, "crypto_key_id"},
		"an ID with a dot":                {"a.b", signing(p256, hsm), codes.InvalidArgument, "crypto_key_id"},
		"an ID of 63 characters":          {strings.Repeat("k", 63), signing(p256, hsm), codes.OK, ""},
		"no purpose":                      {"k", change(func(k *kmspb.CryptoKey) { k.Purpose = 0 }), codes.InvalidArgument, "purpose"},
		"no algorithm":                    {"k", change(func(k *kmspb.CryptoKey) { k.VersionTemplate.Algorithm = 0 }), codes.InvalidArgument, "algorithm"},
		"an algorithm of another purpose": {"k", change(func(k *kmspb.CryptoKey) { k.Purpose = kmspb.CryptoKey_ENCRYPT_DECRYPT }), codes.InvalidArgument, "does not go with"},
		"a label in capitals":             {"k", change(func(k *kmspb.CryptoKey) { k.Labels = map[string]string{"A": ""} }), codes.InvalidArgument, "label key"},
		"a label that is a number":        {"k", change(func(k *kmspb.CryptoKey) { k.Labels = map[string]string{"1": ""} }), codes.InvalidArgument, "label key"},
		"a value with a slash":            {"k", change(func(k *kmspb.CryptoKey) { k.Labels = map[string]string{"a": "x/y"} }), codes.InvalidArgument, "label value"},
		"a value of 64 characters":        {"k", change(func(k *kmspb.CryptoKey) { k.Labels = map[string]string{"a": strings.Repeat("x", 64)} }), codes.InvalidArgument, "label value"},
		"65 labels":                       {"k", change(func(k *kmspb.CryptoKey) { k.Labels = many }), codes.InvalidArgument, "64 labels"},
		"destroyed within hours":          {"k", change(func(k *kmspb.CryptoKey) { k.DestroyScheduledDuration = durationpb.New(time.Hour) }), codes.InvalidArgument, "destroy_scheduled_duration"},
		"another level":                   {"k", change(func(k *kmspb.CryptoKey) { k.VersionTemplate.ProtectionLevel = kmspb.ProtectionLevel_EXTERNAL }), codes.InvalidArgument, "protection level"},
		"a field it does not know":        {"k", change(func(k *kmspb.CryptoKey) { k.ImportOnly = true }), codes.Unimplemented, "crypto_key.import_only"},
	} {
		_, err := c.create(test.id, test.key)
		want(t, name, err, test.code, test.says)
	}
	other := strings.Replace(ring, "mesh", "other", 1)
	_, err := c.CreateCryptoKey(c.to("parent", other), &kmspb.CreateCryptoKeyRequest{Parent: other, CryptoKeyId: "k", CryptoKey: signing(p256, hsm)})
	want(t, "another ring", err, codes.NotFound, "KeyRing")
	_, err = c.CreateCryptoKey(c.to("parent", "x"), &kmspb.CreateCryptoKeyRequest{Parent: "x", CryptoKeyId: "k", CryptoKey: signing(p256, hsm)})
	want(t, "no ring", err, codes.InvalidArgument, "KeyRing")
}

func TestANameIsTakenForGood(t *testing.T) {
	now := time.Now()
	s := Start(t, Options{Visibility: time.Minute, Now: func() time.Time { return now }})
	c := connect(t, s)
	key, err := c.create("k", signing(p256, hsm))
	want(t, "create", err, codes.OK, "")
	_, err = c.create("k", signing(p256, hsm))
	want(t, "create again", err, codes.AlreadyExists, key.GetName()+" already exists")
	_, err = c.GetCryptoKey(c.to("name", key.GetName()), &kmspb.GetCryptoKeyRequest{Name: key.GetName()})
	want(t, "too early", err, codes.NotFound, "CryptoKey "+key.GetName())
	now = now.Add(time.Minute)
	_, err = c.GetCryptoKey(c.to("name", key.GetName()), &kmspb.GetCryptoKeyRequest{Name: key.GetName()})
	want(t, "later", err, codes.OK, "")
	if key.GetPrimary() != nil || key.GetDestroyScheduledDuration().AsDuration() != 30*24*time.Hour {
		t.Errorf("made as %v", key)
	}
	if keys := s.Keys(); len(keys) != 1 || keys[0].ID != "k" || len(keys[0].Versions) != 1 {
		t.Errorf("%+v", keys)
	}
}

func TestRoutesByTheHeader(t *testing.T) {
	s := Start(t, Options{KeyRings: []string{ring, "projects/p/locations/us-east1/keyRings/r"}})
	c := connect(t, s)
	req := &kmspb.ListCryptoKeysRequest{Parent: ring}
	for name, test := range map[string]struct {
		ctx  context.Context
		code codes.Code
		says string
	}{
		"right":            {c.to("parent", ring), codes.OK, ""},
		"none":             {t.Context(), codes.NotFound, "but was sent to location 'global'. Either Cloud KMS is not available in 'europe-west4' or the request was misrouted"},
		"another field":    {c.to("name", ring), codes.NotFound, "misrouted"},
		"another location": {c.to("parent", "projects/p/locations/us-east1/keyRings/r"), codes.NotFound, "was sent to location 'us-east1'"},
	} {
		_, err := c.ListCryptoKeys(test.ctx, req)
		want(t, name, err, test.code, test.says)
	}
	moon := "projects/p/locations/moon/keyRings/r"
	_, err := c.ListCryptoKeys(c.to("parent", moon), &kmspb.ListCryptoKeysRequest{Parent: moon})
	want(t, "no such location", err, codes.NotFound, "Cloud KMS is not available in 'moon'")
}

func TestSignsWhatTheAlgorithmSays(t *testing.T) {
	c := connect(t, Start(t, Options{}))
	text := []byte("text")
	d256, d384 := sha256.Sum256(text), sha512.Sum384(text)
	for alg, verifies := range map[kmspb.CryptoKeyVersion_CryptoKeyVersionAlgorithm]func(pub any, sig []byte) bool{
		p256: func(pub any, sig []byte) bool { return ecdsa.VerifyASN1(pub.(*ecdsa.PublicKey), d256[:], sig) },
		kmspb.CryptoKeyVersion_EC_SIGN_P384_SHA384: func(pub any, sig []byte) bool { return ecdsa.VerifyASN1(pub.(*ecdsa.PublicKey), d384[:], sig) },
		kmspb.CryptoKeyVersion_EC_SIGN_ED25519:     func(pub any, sig []byte) bool { return ed25519.Verify(pub.(ed25519.PublicKey), text, sig) },
		kmspb.CryptoKeyVersion_RSA_SIGN_PKCS1_2048_SHA256: func(pub any, sig []byte) bool {
			return rsa.VerifyPKCS1v15(pub.(*rsa.PublicKey), crypto.SHA256, d256[:], sig) == nil
		},
		kmspb.CryptoKeyVersion_RSA_SIGN_PSS_2048_SHA256: func(pub any, sig []byte) bool {
			return rsa.VerifyPSS(pub.(*rsa.PublicKey), crypto.SHA256, d256[:], sig, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}) == nil
		},
	} {
		name := c.ready(alg.String(), signing(alg, hsm))
		said, err := c.GetPublicKey(c.to("name", name), &kmspb.GetPublicKeyRequest{Name: name})
		if err != nil {
			t.Fatal(err)
		}
		block, _ := pem.Decode([]byte(said.GetPem()))
		pub, err := x509.ParsePKIXPublicKey(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		if said.GetName() != name || said.GetAlgorithm() != alg || said.GetProtectionLevel() != hsm || said.GetPemCrc32C().GetValue() != sum([]byte(said.GetPem())).GetValue() {
			t.Errorf("%s: its public key says %v", alg, said)
		}
		sig, err := c.AsymmetricSign(c.to("name", name), &kmspb.AsymmetricSignRequest{Name: name, Data: text, DataCrc32C: sum(text)})
		if err != nil {
			t.Fatal(err)
		}
		if !verifies(pub, sig.GetSignature()) {
			t.Errorf("%s: the signature does not verify", alg)
		}
		if sig.GetName() != name || !sig.GetVerifiedDataCrc32C() || sig.GetVerifiedDigestCrc32C() || sig.GetProtectionLevel() != hsm ||
			sig.GetSignatureCrc32C().GetValue() != sum(sig.GetSignature()).GetValue() {
			t.Errorf("%s: its signature says %v", alg, sig)
		}
	}
}

func TestRefusesSignatures(t *testing.T) {
	s := Start(t, Options{})
	c := connect(t, s)
	ec, ed := c.ready("ec", signing(p256, hsm)), c.ready("ed", signing(kmspb.CryptoKeyVersion_EC_SIGN_ED25519, hsm))
	symmetric := c.ready("aes", &kmspb.CryptoKey{Purpose: kmspb.CryptoKey_ENCRYPT_DECRYPT})
	short := &kmspb.Digest{Digest: &kmspb.Digest_Sha256{Sha256: make([]byte, 31)}}
	wrong := &kmspb.Digest{Digest: &kmspb.Digest_Sha384{Sha384: make([]byte, 48)}}
	right := sha256Digest("text")
	for name, test := range map[string]struct {
		req  *kmspb.AsymmetricSignRequest
		code codes.Code
		says string
	}{
		"right":                  {&kmspb.AsymmetricSignRequest{Name: ec, Digest: right}, codes.OK, ""},
		"a short digest":         {&kmspb.AsymmetricSignRequest{Name: ec, Digest: short}, codes.InvalidArgument, "31"},
		"the kind of another":    {&kmspb.AsymmetricSignRequest{Name: ec, Digest: wrong}, codes.InvalidArgument, "digest"},
		"a digest for Ed25519":   {&kmspb.AsymmetricSignRequest{Name: ed, Digest: right}, codes.InvalidArgument, "takes data"},
		"both":                   {&kmspb.AsymmetricSignRequest{Name: ec, Digest: right, Data: []byte("x")}, codes.InvalidArgument, "only one"},
		"neither":                {&kmspb.AsymmetricSignRequest{Name: ec}, codes.InvalidArgument, "must be set"},
		"both checksums":         {&kmspb.AsymmetricSignRequest{Name: ec, Digest: right, DigestCrc32C: sum(nil), DataCrc32C: sum(nil)}, codes.InvalidArgument, "only one"},
		"a checksum of another":  {&kmspb.AsymmetricSignRequest{Name: ec, Digest: right, DigestCrc32C: sum([]byte("x"))}, codes.InvalidArgument, "The checksum in field digest_crc32c did not match the data in field digest."},
		"a checksum of the text": {&kmspb.AsymmetricSignRequest{Name: ed, Data: []byte("x"), DataCrc32C: sum([]byte("y"))}, codes.InvalidArgument, "The checksum in field data_crc32c"},
		"a long text":            {&kmspb.AsymmetricSignRequest{Name: ed, Data: make([]byte, 9<<10)}, codes.InvalidArgument, "too long"},
		"a key that encrypts":    {&kmspb.AsymmetricSignRequest{Name: symmetric, Digest: right}, codes.FailedPrecondition, "purpose"},
		"no such version":        {&kmspb.AsymmetricSignRequest{Name: strings.TrimSuffix(ec, "1") + "2", Digest: right}, codes.NotFound, "CryptoKeyVersion"},
		"a key, not a version":   {&kmspb.AsymmetricSignRequest{Name: strings.TrimSuffix(ec, "/cryptoKeyVersions/1"), Digest: right}, codes.InvalidArgument, "CryptoKeyVersion"},
		"no name":                {&kmspb.AsymmetricSignRequest{Digest: right}, codes.InvalidArgument, "CryptoKeyVersion"},
	} {
		_, err := c.AsymmetricSign(c.to("name", test.req.GetName()), test.req)
		want(t, name, err, test.code, test.says)
	}
	// Checksums need not be sent; then they are not said to be verified.
	sig, err := c.AsymmetricSign(c.to("name", ec), &kmspb.AsymmetricSignRequest{Name: ec, Digest: right})
	if err != nil || sig.GetVerifiedDigestCrc32C() {
		t.Errorf("%v, %v", sig, err)
	}
}

func TestStates(t *testing.T) {
	now := time.Now()
	s := Start(t, Options{Generation: time.Minute, Now: func() time.Time { return now }})
	c := connect(t, s)
	key, err := c.create("k", signing(p256, hsm))
	want(t, "create", err, codes.OK, "")
	name := key.GetName() + "/cryptoKeyVersions/1"
	use := func() error {
		_, err := c.AsymmetricSign(c.to("name", name), &kmspb.AsymmetricSignRequest{Name: name, Digest: sha256Digest("")})
		return err
	}
	set := func(state kmspb.CryptoKeyVersion_CryptoKeyVersionState) error {
		_, err := c.UpdateCryptoKeyVersion(c.to("crypto_key_version.name", name), &kmspb.UpdateCryptoKeyVersionRequest{
			CryptoKeyVersion: &kmspb.CryptoKeyVersion{Name: name, State: state}, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{"state"}},
		})
		return err
	}
	destroy := func() error {
		_, err := c.DestroyCryptoKeyVersion(c.to("name", name), &kmspb.DestroyCryptoKeyVersionRequest{Name: name})
		return err
	}
	restore := func() error {
		_, err := c.RestoreCryptoKeyVersion(c.to("name", name), &kmspb.RestoreCryptoKeyVersionRequest{Name: name})
		return err
	}
	step := func(what string, err error, code codes.Code, state kmspb.CryptoKeyVersion_CryptoKeyVersionState) {
		t.Helper()
		if got := c.version(name).GetState(); status.Code(err) != code || got != state {
			t.Errorf("%s: %v, state %s, want %s and %s", what, err, got, code, state)
		}
	}
	const no = codes.FailedPrecondition
	step("use at first", use(), no, kmspb.CryptoKeyVersion_PENDING_GENERATION)
	step("destroy at first", destroy(), no, kmspb.CryptoKeyVersion_PENDING_GENERATION)
	step("disable at first", set(kmspb.CryptoKeyVersion_DISABLED), no, kmspb.CryptoKeyVersion_PENDING_GENERATION)
	if c.version(name).GetAttestation() != nil {
		t.Error("a pending version has an attestation")
	}
	now = now.Add(time.Minute)
	for c.version(name).GetState() == kmspb.CryptoKeyVersion_PENDING_GENERATION {
	}
	step("use", use(), codes.OK, kmspb.CryptoKeyVersion_ENABLED)
	step("disable", set(kmspb.CryptoKeyVersion_DISABLED), codes.OK, kmspb.CryptoKeyVersion_DISABLED)
	step("use while disabled", use(), no, kmspb.CryptoKeyVersion_DISABLED)
	step("enable", set(kmspb.CryptoKeyVersion_ENABLED), codes.OK, kmspb.CryptoKeyVersion_ENABLED)
	step("set to destroyed", set(kmspb.CryptoKeyVersion_DESTROYED), codes.InvalidArgument, kmspb.CryptoKeyVersion_ENABLED)
	step("restore", restore(), no, kmspb.CryptoKeyVersion_ENABLED)
	step("destroy", destroy(), codes.OK, kmspb.CryptoKeyVersion_DESTROY_SCHEDULED)
	step("destroy again", destroy(), no, kmspb.CryptoKeyVersion_DESTROY_SCHEDULED)
	step("use after that", use(), no, kmspb.CryptoKeyVersion_DESTROY_SCHEDULED)
	step("restore", restore(), codes.OK, kmspb.CryptoKeyVersion_DISABLED)
	step("destroy", destroy(), codes.OK, kmspb.CryptoKeyVersion_DESTROY_SCHEDULED)
	now = now.Add(30 * 24 * time.Hour)
	step("use in the end", use(), no, kmspb.CryptoKeyVersion_DESTROYED)
	step("restore in the end", restore(), no, kmspb.CryptoKeyVersion_DESTROYED)
}

// What the public reports of a pending version show, in words and in details.
func TestAPendingVersionSaysSo(t *testing.T) {
	c := connect(t, Start(t, Options{Generation: time.Hour}))
	key, err := c.create("k", signing(p256, hsm))
	want(t, "create", err, codes.OK, "")
	name := key.GetName() + "/cryptoKeyVersions/1"
	_, err = c.GetPublicKey(c.to("name", name), &kmspb.GetPublicKeyRequest{Name: name})
	want(t, "public key", err, codes.FailedPrecondition, name+" is not enabled, current state is: PENDING_GENERATION.")
	details := status.Convert(err).Details()
	if len(details) != 1 {
		t.Fatalf("details %v", details)
	}
	v := details[0].(*errdetails.PreconditionFailure).GetViolations()
	if len(v) != 1 || v[0].GetType() != "KEY_PENDING_GENERATION" || v[0].GetSubject() != name {
		t.Errorf("details %v", details)
	}
}

func TestFailedGeneration(t *testing.T) {
	s := Start(t, Options{})
	c := connect(t, s)
	s.FailGenerations(1)
	name := c.ready("k", signing(p256, hsm))
	if v := c.version(name); v.GetState() != kmspb.CryptoKeyVersion_GENERATION_FAILED || v.GetGenerationFailureReason() == "" {
		t.Errorf("%v", v)
	}
	key := strings.TrimSuffix(name, "/cryptoKeyVersions/1")
	next, err := c.CreateCryptoKeyVersion(c.to("parent", key), &kmspb.CreateCryptoKeyVersionRequest{Parent: key, CryptoKeyVersion: &kmspb.CryptoKeyVersion{}})
	if err != nil || next.GetName() != key+"/cryptoKeyVersions/2" {
		t.Errorf("%v, %v", next, err)
	}
}

func TestAttestations(t *testing.T) {
	c := connect(t, Start(t, Options{}))
	hard, soft := c.version(c.ready("hard", signing(p256, hsm))), c.version(c.ready("soft", signing(p256, kmspb.ProtectionLevel_SOFTWARE)))
	if a := hard.GetAttestation(); a.GetFormat() != kmspb.KeyOperationAttestation_CAVIUM_V2_COMPRESSED || len(a.GetContent()) == 0 || len(a.GetCertChains().GetCaviumCerts()) == 0 {
		t.Errorf("in hardware: %v", a)
	}
	if soft.GetAttestation() != nil {
		t.Errorf("in software: %v", soft.GetAttestation())
	}
	key := strings.TrimSuffix(hard.GetName(), "/cryptoKeyVersions/1")
	for view, has := range map[kmspb.CryptoKeyVersion_CryptoKeyVersionView]bool{
		kmspb.CryptoKeyVersion_CRYPTO_KEY_VERSION_VIEW_UNSPECIFIED: false, kmspb.CryptoKeyVersion_FULL: true,
	} {
		l, err := c.ListCryptoKeyVersions(c.to("parent", key), &kmspb.ListCryptoKeyVersionsRequest{Parent: key, View: view})
		if err != nil || len(l.GetCryptoKeyVersions()) != 1 || (l.GetCryptoKeyVersions()[0].GetAttestation() != nil) != has {
			t.Errorf("view %s: %v, %v", view, l, err)
		}
	}
}

func TestPages(t *testing.T) {
	c := connect(t, Start(t, Options{MaxPage: 2}))
	for _, id := range []string{"c", "a", "b", "e", "d"} {
		_, err := c.create(id, signing(p256, hsm))
		want(t, id, err, codes.OK, "")
	}
	var ids []string
	token, pages := "", 0
	for {
		l, err := c.ListCryptoKeys(c.to("parent", ring), &kmspb.ListCryptoKeysRequest{Parent: ring, PageSize: 100, PageToken: token})
		if err != nil {
			t.Fatal(err)
		}
		for _, k := range l.GetCryptoKeys() {
			ids = append(ids, k.GetName()[len(ring+"/cryptoKeys/"):])
		}
		if pages++; l.GetNextPageToken() == "" {
			break
		}
		token = l.GetNextPageToken()
	}
	if strings.Join(ids, "") != "abcde" || pages != 3 {
		t.Errorf("%q on %d pages", ids, pages)
	}
	_, err := c.ListCryptoKeys(c.to("parent", ring), &kmspb.ListCryptoKeysRequest{Parent: ring, PageToken: "2"})
	want(t, "no token", err, codes.InvalidArgument, "page_token")
	key := ring + "/cryptoKeys/a"
	_, err = c.ListCryptoKeyVersions(c.to("parent", key), &kmspb.ListCryptoKeyVersionsRequest{Parent: key, PageToken: token})
	want(t, "the token of another listing", err, codes.InvalidArgument, "page_token")
	_, err = c.ListCryptoKeys(c.to("parent", ring), &kmspb.ListCryptoKeysRequest{Parent: ring, Filter: "x"})
	want(t, "a filter", err, codes.Unimplemented, "filter")
}

func TestPermissions(t *testing.T) {
	for _, bare := range []bool{false, true} {
		s := Start(t, Options{BareDenials: bare})
		c := connect(t, s)
		name := c.ready("k", signing(p256, hsm))
		key := strings.TrimSuffix(name, "/cryptoKeyVersions/1")
		for permission, call := range map[string]func() error{
			"cloudkms.cryptoKeys.create": func() error { _, err := c.create("l", signing(p256, hsm)); return err },
			"cloudkms.cryptoKeys.get": func() error {
				_, err := c.GetCryptoKey(c.to("name", key), &kmspb.GetCryptoKeyRequest{Name: key})
				return err
			},
			"cloudkms.cryptoKeys.list": func() error {
				_, err := c.ListCryptoKeys(c.to("parent", ring), &kmspb.ListCryptoKeysRequest{Parent: ring})
				return err
			},
			"cloudkms.cryptoKeyVersions.create": func() error {
				_, err := c.CreateCryptoKeyVersion(c.to("parent", key), &kmspb.CreateCryptoKeyVersionRequest{Parent: key})
				return err
			},
			"cloudkms.cryptoKeyVersions.list": func() error {
				_, err := c.ListCryptoKeyVersions(c.to("parent", key), &kmspb.ListCryptoKeyVersionsRequest{Parent: key})
				return err
			},
			"cloudkms.cryptoKeyVersions.get": func() error {
				_, err := c.GetCryptoKeyVersion(c.to("name", name), &kmspb.GetCryptoKeyVersionRequest{Name: name})
				return err
			},
			"cloudkms.cryptoKeyVersions.viewPublicKey": func() error {
				_, err := c.GetPublicKey(c.to("name", name), &kmspb.GetPublicKeyRequest{Name: name})
				return err
			},
			"cloudkms.cryptoKeyVersions.useToSign": func() error {
				_, err := c.AsymmetricSign(c.to("name", name), &kmspb.AsymmetricSignRequest{Name: name, Digest: sha256Digest("")})
				return err
			},
		} {
			s.Deny(permission)
			err := call()
			want(t, permission, err, codes.PermissionDenied, "Permission '"+permission+"' denied on resource 'projects/")
			details := status.Convert(err).Details()
			if bare != (len(details) == 0) {
				t.Errorf("%s: details %v", permission, details)
			}
			if !bare && details[0].(*errdetails.ErrorInfo).GetMetadata()["permission"] != permission {
				t.Errorf("%s: details %v", permission, details)
			}
			s.Allow(permission)
			want(t, permission+", given back", call(), codes.OK, "")
		}
	}
}

func TestQuota(t *testing.T) {
	now := time.Now()
	s := Start(t, Options{Now: func() time.Time { return now }})
	c := connect(t, s)
	name := c.ready("k", signing(p256, hsm))
	use := func() error {
		_, err := c.AsymmetricSign(c.to("name", name), &kmspb.AsymmetricSignRequest{Name: name, Digest: sha256Digest("")})
		return err
	}
	s.Limit("AsymmetricSign", 3)
	for range 2 {
		for range 3 {
			want(t, "within", use(), codes.OK, "")
		}
		err := use()
		want(t, "over", err, codes.ResourceExhausted, "Quota exceeded for quota metric")
		if i, ok := status.Convert(err).Details()[0].(*errdetails.ErrorInfo); !ok || i.GetReason() != "RATE_LIMIT_EXCEEDED" {
			t.Errorf("details %v", status.Convert(err).Details())
		}
		now = now.Add(time.Second)
	}
	s.Limit("AsymmetricSign", 0)
	want(t, "without", use(), codes.OK, "")
	if n := s.Calls("AsymmetricSign"); n != 9 {
		t.Errorf("%d calls counted", n)
	}
}

func TestFaults(t *testing.T) {
	s := Start(t, Options{})
	c := connect(t, s)
	lost := status.Error(codes.Unavailable, "lost")
	s.Inject(Fault{Op: "CreateCryptoKey", Times: 1, Err: lost})
	_, err := c.create("a", signing(p256, hsm))
	want(t, "refused", err, codes.Unavailable, "lost")
	s.Inject(Fault{Op: "CreateCryptoKey", Times: 1, Err: lost, Apply: true})
	_, err = c.create("b", signing(p256, hsm))
	want(t, "lost", err, codes.Unavailable, "lost")
	s.Inject(Fault{Op: "CreateCryptoKey", Times: 1, Cut: true, Apply: true})
	_, err = c.create("c", signing(p256, hsm))
	want(t, "cut", err, codes.Unavailable, "")
	var ids string
	for _, k := range s.Keys() {
		ids += k.ID
	}
	if ids != "bc" {
		t.Errorf("%q were made, want b and c", ids)
	}
	for err = lost; status.Code(err) == codes.Unavailable; {
		_, err = c.create("d", signing(p256, hsm))
	}
	want(t, "afterwards", err, codes.OK, "")
	heal := s.Inject(Fault{Answer: func(m proto.Message) { m.(*kmspb.CryptoKey).Name = "changed" }})
	if k, err := c.create("e", signing(p256, hsm)); err != nil || k.GetName() != "changed" {
		t.Errorf("%v, %v", k, err)
	}
	heal()
	if k, err := c.create("f", signing(p256, hsm)); err != nil || k.GetName() == "changed" {
		t.Errorf("%v, %v", k, err)
	}
}

func TestPlainTextTakesNoCredential(t *testing.T) {
	c := connect(t, Start(t, Options{}))
	ctx := metadata.AppendToOutgoingContext(c.to("parent", ring), "authorization", "Bearer x")
	_, err := c.ListCryptoKeys(ctx, &kmspb.ListCryptoKeysRequest{Parent: ring})
	want(t, "with a credential", err, codes.Unauthenticated, "invalid authentication credentials")
}
