package awskms_test

import (
	"bytes"
	"context"
	"crypto"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/zonemint/zonemint/backends/check"
	"github.com/zonemint/zonemint/integration/awskmsdouble"
	"github.com/zonemint/zonemint/signer"
)

// since returns what has been called since before, as "Sign 3".
func since(s *awskmsdouble.Server, before map[string]int) string {
	var texts []string
	after := s.Calls()
	for _, op := range slices.Sorted(maps.Keys(after)) {
		if n := after[op] - before[op]; n > 0 {
			texts = append(texts, fmt.Sprintf("%s %d", op, n))
		}
	}
	return strings.Join(texts, ", ")
}

func TestOneCallForEachSignature(t *testing.T) {
	s := start(t)
	o := options(s)
	o.RequestTimeout = time.Minute // all of them are asked for at once
	b := open(t, o)
	key := make(map[signer.Algorithm]*signer.Key)
	for _, alg := range []signer.Algorithm{signer.RS256, signer.ES256, signer.EdDSA} {
		spec := newSpec(alg)
		key[alg] = openKey(t, b, spec, create(t, b, spec))
	}
	before := s.Calls()
	var wg sync.WaitGroup
	for alg := range key {
		for i := range 200 {
			wg.Go(func() {
				if _, err := key[alg].SignJWS(t.Context(), fmt.Append(nil, alg, i)); err != nil {
					t.Error(err)
				}
			})
		}
	}
	wg.Wait()
	if got := since(s, before); got != "Sign 600" {
		t.Errorf("600 signatures took %s", got)
	}
}

// A throttled signature is reported at once and not asked for again.
func TestThrottled(t *testing.T) {
	s := start(t)
	o := options(s)
	o.MaxSignaturesPerSecond, o.MaxWaiting = 120, 17
	b := open(t, o)
	if got := b.Budget(); got.PerSecond != 120 || got.Waiting != 17 {
		t.Errorf("the budget is %+v", got)
	}
	h, _, _ := handle(t, b, signer.ES256)
	s.Limit("Sign", 10)
	before := s.Calls()
	var made, throttled atomic.Int64
	var wg sync.WaitGroup
	for range 100 {
		wg.Go(func() {
			switch _, err := sign(t.Context(), h, signer.ES256); {
			case err == nil:
				made.Add(1)
			case b.Code(err) == signer.Throttled:
				throttled.Add(1)
			default:
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if got := since(s, before); got != "Sign 100" || made.Load()+throttled.Load() != 100 || throttled.Load() == 0 || made.Load() < 10 {
		t.Errorf("%s, %d made, %d throttled", got, made.Load(), throttled.Load())
	}
}

// A connection that was closed costs a repetition where something is read, once, and
// never where something is made.
func TestLostConnections(t *testing.T) {
	s := start(t)
	b := open(t, options(s))
	h, spec, ref := handle(t, b, signer.ES256)
	for _, f := range []awskmsdouble.Fault{{Cut: true}, {Lost: true}} {
		f.Op = "GetPublicKey"
		s.Inject(f)
		before := s.Calls()
		if _, err := h.Public(t.Context()); err != nil || since(s, before) != "GetPublicKey 2" {
			t.Errorf("%+v once: %v, %s", f, err, since(s, before))
		}
		f.Times = 2
		s.Inject(f)
		before = s.Calls()
		if _, err := h.Public(t.Context()); b.Code(err) != signer.Unavailable || since(s, before) != "GetPublicKey 2" {
			t.Errorf("%+v twice: %v, %s", f, err, since(s, before))
		}
		f.Times = 1
		for op, call := range map[string]func() error{
			"Sign":                func() error { _, err := sign(t.Context(), h, signer.ES256); return err },
			"CreateKey":           func() error { _, err := b.Create(t.Context(), newSpec(signer.ES256)); return err },
			"DisableKey":          func() error { return b.Destroy(t.Context(), spec, ref) },
			"ScheduleKeyDeletion": func() error { return b.Destroy(t.Context(), spec, ref) },
		} {
			f.Op = op
			s.Inject(f)
			before := s.Calls()[op]
			if err := call(); b.Code(err) != signer.Unavailable || s.Calls()[op]-before != 1 {
				t.Errorf("%+v: %v, %d calls", f, err, s.Calls()[op]-before)
			}
			if op == "DisableKey" || op == "ScheduleKeyDeletion" {
				s.SetState(arnOf(ref), awskmsdouble.Enabled)
			}
		}
	}
}

// Whatever became of CreateKey, after the window Find knows it.
func TestLostCreate(t *testing.T) {
	for name, c := range map[string]struct {
		fault awskmsdouble.Fault
		keys  int
	}{
		"answer lost":  {awskmsdouble.Fault{Lost: true}, 1},
		"never came":   {awskmsdouble.Fault{Cut: true}, 0},
		"throttled":    {awskmsdouble.Fault{Error: &awskmsdouble.Exception{Type: "ThrottlingException"}}, 0},
		"over quota":   {awskmsdouble.Fault{Error: &awskmsdouble.Exception{Type: "LimitExceededException"}}, 0},
		"out of order": {awskmsdouble.Fault{Error: &awskmsdouble.Exception{Type: "KMSInternalException", Status: 500}}, 0},
		"garbled":      {awskmsdouble.Fault{Mangle: func(m map[string]any) { clear(m) }}, 1},
		"other region": {awskmsdouble.Fault{Mangle: func(m map[string]any) {
			m["KeyMetadata"].(map[string]any)["Arn"] = "arn:aws:kms:us-east-1:111122223333:key/x"
		}}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			s := start(t)
			s.SetDelays(awskmsdouble.Delays{Keys: 50 * time.Millisecond, Tags: time.Hour})
			b := open(t, options(s))
			c.fault.Op = "CreateKey"
			s.Inject(c.fault)
			spec := newSpec(signer.ES256)
			if _, err := signer.Create(t.Context(), b, spec); err == nil {
				t.Fatal("no error")
			}
			if n := s.Calls()["CreateKey"]; n != 1 {
				t.Errorf("%d calls", n)
			}
			time.Sleep(window)
			refs, err := signer.Find(t.Context(), open(t, options(s)), spec)
			if err != nil || len(refs) != c.keys || labels(s)[spec.Label] != c.keys {
				t.Errorf("found %d, %v; there are %d, want %d", len(refs), err, labels(s)[spec.Label], c.keys)
			}
			if c.keys == 1 {
				if err := openKey(t, b, spec, refs[0]).Probe(t.Context()); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// An answer that was changed on the way, or is another key's, is Corrupt, and nobody
// gets a signature.
func TestCorruptAnswers(t *testing.T) {
	s := start(t)
	b := open(t, options(s))
	spec := newSpec(signer.ES256)
	ref := create(t, b, spec)
	key := openKey(t, b, spec, ref)
	_, _, other := handle(t, b, signer.ES256)
	set := func(name string, value any) func(map[string]any) {
		return func(m map[string]any) { m[name] = value }
	}
	flip := func(m map[string]any) {
		sig := []byte(m["Signature"].(string))
		sig[20] ^= 1
		m["Signature"] = string(sig)
	}
	for name, c := range map[string]struct {
		op     string
		mangle func(map[string]any)
	}{
		"another key signs":      {"Sign", set("KeyId", arnOf(other))},
		"no key signs":           {"Sign", func(m map[string]any) { delete(m, "KeyId") }},
		"key ID without ARN":     {"Sign", set("KeyId", arnOf(ref)[strings.LastIndexByte(arnOf(ref), '/')+1:])},
		"another algorithm":      {"Sign", set("SigningAlgorithm", "ECDSA_SHA_384")},
		"no signature":           {"Sign", set("Signature", "")},
		"a bit is flipped":       {"Sign", flip},
		"public key of another":  {"GetPublicKey", set("KeyId", arnOf(other))},
		"public key for another": {"GetPublicKey", set("KeyUsage", "KEY_AGREEMENT")},
		"another kind of key":    {"GetPublicKey", set("KeySpec", "RSA_2048")},
		"algorithms missing":     {"GetPublicKey", set("SigningAlgorithms", []string{})},
		"no public key":          {"GetPublicKey", set("PublicKey", "AAAA")},
	} {
		t.Run(name, func(t *testing.T) {
			s.Inject(awskmsdouble.Fault{Op: c.op, Mangle: c.mangle})
			var err error
			var got []byte
			if c.op == "Sign" {
				got, err = key.SignJWS(t.Context(), []byte("header.payload"))
			} else {
				_, err = signer.Open(t.Context(), b, spec, ref, nil)
			}
			if signer.CodeOf(err) != signer.Corrupt || got != nil {
				t.Errorf("%v, %d bytes", err, len(got))
			}
		})
	}
	if err := key.Probe(t.Context()); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

// TestCreate looks at what is made, from outside.
func TestCreate(t *testing.T) {
	s := start(t)
	s.SetDelays(awskmsdouble.Delays{Keys: 60 * time.Millisecond, Sign: 120 * time.Millisecond, Creating: 90 * time.Millisecond})
	o := options(s)
	o.ConsistencyWindow = 10 * time.Second // it is not the window that ends the wait
	var logged bytes.Buffer
	o.Logger = slog.New(slog.NewTextHandler(&logged, nil))
	o.AliasPrefix, o.MultiRegion, o.Tags = "mesh/", true, map[string]string{"cost-centre": "4711"}
	o.KeyPolicyFile = writeFile(t, `{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": {"AWS": "arn:aws:iam::111122223333:root"}, "Action": "kms:*", "Resource": "*"}]}`)
	b := open(t, o)
	spec := newSpec(signer.RS256)
	ref := create(t, b, spec)
	h, err := b.Open(t.Context(), spec, ref)
	if err != nil {
		t.Fatal(err)
	}
	before := s.Calls()
	if _, err := sign(t.Context(), h, signer.RS256); err != nil || since(s, before) != "Sign 1" {
		t.Errorf("the first signature: %v, %s", err, since(s, before))
	}
	if logged.Len() > 0 {
		t.Errorf("there is nothing to log, and there is %s", &logged)
	}
	k := s.Keys()[0]
	wantTags := map[string]string{"cost-centre": "4711", "zonemint:label": spec.Label, "zonemint:keyset": "dataplane/default", "zonemint:serial": "3", "zonemint:algorithm": "RS256-2048"}
	if k.ARN != arnOf(ref) || k.Spec != "RSA_2048" || !k.MultiRegion || !maps.Equal(k.Tags, wantTags) ||
		k.Description != spec.Label+": serial 3 of keyset dataplane/default, RS256-2048" || !slices.Equal(k.Aliases, []string{"alias/mesh/dataplane/default/3/" + spec.Label}) {
		t.Errorf("%+v", k)
	}
}

// Once there is a key, nothing keeps its reference from the caller.
func TestCreateSurvivesWhatComesAfter(t *testing.T) {
	for name, spoil := range map[string]func(*awskmsdouble.Server){
		"never seen":       func(s *awskmsdouble.Server) { s.SetDelays(awskmsdouble.Delays{Keys: time.Hour}) },
		"no alias":         func(s *awskmsdouble.Server) { s.Deny("kms:CreateAlias") },
		"not readable":     func(s *awskmsdouble.Server) { s.Deny("kms:GetPublicKey") },
		"does not sign":    func(s *awskmsdouble.Server) { s.Deny("kms:Sign") },
		"alias unanswered": func(s *awskmsdouble.Server) { s.Inject(awskmsdouble.Fault{Op: "CreateAlias", Cut: true}) },
	} {
		t.Run(name, func(t *testing.T) {
			s := start(t)
			spoil(s)
			o := options(s)
			o.AliasPrefix = "mesh/"
			ref := create(t, open(t, o), newSpec(signer.ES256))
			if keys := s.Keys(); len(keys) != 1 || keys[0].ARN != arnOf(ref) {
				t.Errorf("%+v, %s", keys, ref)
			}
		})
	}
}

// A caller who leaves while a key settles has a key all the same.
func TestCreateIsCancelledLate(t *testing.T) {
	s := start(t)
	s.SetDelays(awskmsdouble.Delays{Keys: time.Hour})
	o := options(s)
	o.ConsistencyWindow = 90 * time.Second
	b := open(t, o)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		for s.Calls()["GetPublicKey"] == 0 {
			time.Sleep(time.Millisecond)
		}
		cancel()
	}()
	if ref, err := signer.Create(ctx, b, newSpec(signer.ES256)); err != nil || len(s.Keys()) != 1 || s.Keys()[0].ARN != arnOf(ref) {
		t.Errorf("%s, %v, %+v", ref, err, s.Keys())
	}
}

func TestPolicyThatLocksOut(t *testing.T) {
	s := start(t)
	o := options(s)
	o.KeyPolicyFile = writeFile(t, `{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": "*", "Action": "kms:Sign", "Resource": "*"}]}`)
	_, err := signer.Create(t.Context(), open(t, o), newSpec(signer.ES256))
	if signer.CodeOf(err) != signer.Misconfigured || !strings.Contains(err.Error(), "key policy") || len(s.Keys()) != 0 {
		t.Errorf("%v", err)
	}
}

// KMS signs 4096 bytes with Ed25519, and what is longer is refused here, in words.
func TestLongMessages(t *testing.T) {
	s := start(t)
	b := open(t, options(s))
	h, _, _ := handle(t, b, signer.EdDSA)
	if _, err := h.Sign(t.Context(), signer.EdDSA, make([]byte, 4096)); err != nil {
		t.Error(err)
	}
	before := s.Calls()
	_, err := h.Sign(t.Context(), signer.EdDSA, make([]byte, 4097))
	if b.Code(err) != signer.Unsupported || !strings.Contains(err.Error(), "4096") || since(s, before) != "" {
		t.Errorf("%v, %s", err, since(s, before))
	}
	long, _, _ := handle(t, b, signer.RS256)
	if _, err := sign(t.Context(), long, signer.RS256); err != nil {
		t.Error(err)
	}
	if _, err := long.Sign(t.Context(), signer.PS256, make([]byte, crypto.SHA256.Size())); b.Code(err) != signer.Unsupported {
		t.Errorf("another algorithm: %v", err)
	}
}

// Every permission that is needed is named by "backend check" where it is missing.
func TestCheckNamesEachPermission(t *testing.T) {
	for permission, step := range map[string]string{
		"kms:CreateKey": "create", "kms:TagResource": "create", "kms:ListKeys": "find", "kms:DescribeKey": "find", "kms:GetPublicKey": "public",
		"kms:Sign": "sign", "kms:GetKeyLastUsage": "destroy", "kms:DisableKey": "destroy", "kms:ScheduleKeyDeletion": "destroy", "": "",
	} {
		t.Run(permission, func(t *testing.T) {
			s := start(t)
			o := options(s)
			o.MinIdle = new(time.Nanosecond)
			s.Deny(permission)
			hints := ""
			for _, st := range check.Run(t.Context(), open(t, o), check.Options{Algorithm: signer.ES256, Signatures: 3}) {
				if (st.Err != nil) != (st.Name == step || permission == "kms:DescribeKey" && st.Name == "destroy") {
					t.Errorf("%s: %v", st.Name, st.Err)
				}
				hints += st.Hint
			}
			if permission != "" && !strings.Contains(hints, permission) {
				t.Errorf("the hints do not say %s: %s", permission, hints)
			}
		})
	}
}

// An alias that is moved later moves nothing.
func TestMovedAlias(t *testing.T) {
	s := start(t)
	b := open(t, options(s))
	first, err := s.Plant(awskmsdouble.Planted{Spec: "ECC_NIST_P256"})
	second, err2 := s.Plant(awskmsdouble.Planted{Spec: "ECC_NIST_P256"})
	if err := errors.Join(err, err2); err != nil {
		t.Fatal(err)
	}
	s.SetAlias("alias/mesh", first)
	spec := newSpec(signer.ES256)
	ref, err := signer.Adopt(t.Context(), b, spec, "alias/mesh")
	if err != nil || arnOf(ref) != first {
		t.Fatalf("%s, %v", ref, err)
	}
	key := openKey(t, b, spec, ref)
	s.SetAlias("alias/mesh", second)
	if err := key.Probe(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestAdopt(t *testing.T) {
	s := start(t)
	b := open(t, options(s))
	plant := func(p awskmsdouble.Planted) string {
		arn, err := s.Plant(p)
		if err != nil {
			t.Fatal(err)
		}
		return arn
	}
	ours := newSpec(signer.ES256)
	good := plant(awskmsdouble.Planted{Spec: "ECC_NIST_P256"})
	s.SetAlias("alias/good", good)
	for name, c := range map[string]struct {
		named string
		want  signer.Code
	}{
		"by ARN":               {good, 0},
		"by alias":             {"alias/good", 0},
		"by the alias's ARN":   {"arn:aws:kms:eu-central-1:111122223333:alias/good", 0},
		"imported":             {plant(awskmsdouble.Planted{Spec: "ECC_NIST_P256", Origin: "EXTERNAL"}), 0},
		"by ID":                {good[strings.LastIndexByte(good, '/')+1:], signer.Misconfigured},
		"of another Region":    {"arn:aws:kms:us-east-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab", signer.NotFound},
		"unknown":              {"arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab", signer.NotFound},
		"of another service":   {"arn:aws:s3:::bucket", signer.Misconfigured},
		"of AWS":               {plant(awskmsdouble.Planted{Spec: "ECC_NIST_P256", Manager: "AWS"}), signer.Misconfigured},
		"symmetric":            {plant(awskmsdouble.Planted{Spec: "SYMMETRIC_DEFAULT"}), signer.Misconfigured},
		"on another curve":     {plant(awskmsdouble.Planted{Spec: "ECC_NIST_P384"}), signer.Misconfigured},
		"disabled":             {plant(awskmsdouble.Planted{Spec: "ECC_NIST_P256", State: awskmsdouble.Disabled}), signer.Misconfigured},
		"with another's label": {plant(awskmsdouble.Planted{Spec: "ECC_NIST_P256", Description: signer.NewLabel() + ": serial 1 of keyset zone, ES256"}), signer.Misconfigured},
		"with its own label":   {plant(awskmsdouble.Planted{Spec: "ECC_NIST_P256", Description: ours.Label + ": serial 3 of keyset dataplane/default, ES256"}), 0},
	} {
		ref, err := signer.Adopt(t.Context(), b, ours, c.named)
		if c.want != 0 && signer.CodeOf(err) != c.want || c.want == 0 && err != nil {
			t.Errorf("%s: %s, %v; want %q", name, ref, err, c.want)
		}
	}
	s.SetState(good, awskmsdouble.PendingDeletion)
	if _, err := signer.Adopt(t.Context(), b, ours, good); signer.CodeOf(err) != signer.NotFound {
		t.Errorf("pending deletion: %v", err)
	}
}
