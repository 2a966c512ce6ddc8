package awskmsdouble_test

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/zonemint/zonemint/integration/awskmsdouble"
)

func decode64(tb testing.TB, value any) []byte {
	tb.Helper()
	raw, err := base64.StdEncoding.DecodeString(value.(string))
	if err != nil {
		tb.Fatal(err)
	}
	return raw
}

// Signatures verify with the public key that is shown.
func TestSigns(t *testing.T) {
	s := start(t, awskmsdouble.Options{})
	digest := sha256.Sum256([]byte("message"))
	for _, c := range []struct{ spec, algorithm, kind string }{
		{"RSA_2048", "RSASSA_PKCS1_V1_5_SHA_256", "DIGEST"}, {"RSA_2048", "RSASSA_PSS_SHA_256", "DIGEST"}, {"RSA_2048", "RSASSA_PSS_SHA_256", "RAW"},
		{"ECC_NIST_P256", "ECDSA_SHA_256", "DIGEST"}, {"ECC_NIST_P256", "ECDSA_SHA_256", "RAW"}, {"ECC_NIST_EDWARDS25519", "ED25519_SHA_512", "RAW"},
	} {
		key := newKey(t, s, c.spec)
		message := []byte("message")
		if c.kind == "DIGEST" {
			message = digest[:]
		}
		said := ok(t, s, "Sign", m{"KeyId": key, "Message": message, "MessageType": c.kind, "SigningAlgorithm": c.algorithm})
		shown := ok(t, s, "GetPublicKey", m{"KeyId": key})
		if said["KeyId"] != key || said["SigningAlgorithm"] != c.algorithm || shown["KeyId"] != key || shown["KeySpec"] != c.spec || shown["KeyUsage"] != "SIGN_VERIFY" {
			t.Errorf("%v: %v, %v", c, said, shown)
		}
		public, err := x509.ParsePKIXPublicKey(decode64(t, shown["PublicKey"]))
		if err != nil {
			t.Fatal(err)
		}
		sig, verifies := decode64(t, said["Signature"]), false
		switch public := public.(type) {
		case *rsa.PublicKey:
			if strings.Contains(c.algorithm, "PSS") {
				verifies = rsa.VerifyPSS(public, 5, digest[:], sig, &rsa.PSSOptions{SaltLength: 32}) == nil
			} else {
				verifies = rsa.VerifyPKCS1v15(public, 5, digest[:], sig) == nil
			}
		case *ecdsa.PublicKey:
			verifies = ecdsa.VerifyASN1(public, digest[:], sig)
		case ed25519.PublicKey:
			verifies = ed25519.Verify(public, []byte("message"), sig)
		}
		if !verifies {
			t.Errorf("%v does not verify", c)
		}
		if usage := ok(t, s, "GetKeyLastUsage", m{"KeyId": key})["KeyLastUsage"].(m); usage["Operation"] != "Sign" || usage["Timestamp"].(float64) < float64(time.Now().Add(-time.Minute).Unix()) {
			t.Errorf("%v: used %v", c, usage)
		}
	}
}

func TestPages(t *testing.T) {
	s := start(t, awskmsdouble.Options{})
	for range 25 {
		if _, err := s.Plant(awskmsdouble.Planted{Spec: "SYMMETRIC_DEFAULT"}); err != nil {
			t.Fatal(err)
		}
	}
	seen, pages := map[any]bool{}, 0
	for body := (m{"Limit": 10}); ; pages++ {
		said := ok(t, s, "ListKeys", body)
		for _, k := range said["Keys"].([]any) {
			seen[k.(m)["KeyArn"]] = true
		}
		if said["Truncated"] != true {
			break
		}
		body = m{"Limit": 10, "Marker": said["NextMarker"]}
	}
	if len(seen) != 25 || pages != 2 {
		t.Errorf("%d keys on %d pages", len(seen), pages+1)
	}
	if said := ok(t, s, "ListKeys", m{}); len(said["Keys"].([]any)) != 25 || said["Truncated"] != false {
		t.Errorf("%v", said)
	}
	for _, limit := range []int{0, -1, 1001} {
		refused(t, s, "ListKeys", m{"Limit": limit}, "ValidationException")
	}
	refused(t, s, "ListAliases", m{"Limit": 101}, "ValidationException")
	refused(t, s, "ListKeys", m{"Marker": "xyz"}, "InvalidMarkerException")
}

func TestTags(t *testing.T) {
	s := start(t, awskmsdouble.Options{})
	made := ok(t, s, "CreateKey", m{"KeySpec": "ECC_NIST_P256", "KeyUsage": "SIGN_VERIFY", "Description": "mine", "Tags": []any{m{"TagKey": "a", "TagValue": "1"}}})["KeyMetadata"].(m)
	ok(t, s, "TagResource", m{"KeyId": made["KeyId"], "Tags": []any{m{"TagKey": "a", "TagValue": "2"}, m{"TagKey": "b", "TagValue": ""}}})
	tags := ok(t, s, "ListResourceTags", m{"KeyId": made["Arn"]})["Tags"].([]any)
	if len(tags) != 2 || tags[0].(m)["TagValue"] != "2" || made["Description"] != "mine" || made["KeyState"] != "Enabled" {
		t.Errorf("%v %v", tags, made)
	}
}

func TestDeletion(t *testing.T) {
	now := time.Now()
	s := start(t, awskmsdouble.Options{Now: func() time.Time { return now }})
	key := newKey(t, s, "ECC_NIST_P256")
	for _, days := range []int{-1, 0, 6, 31} {
		refused(t, s, "ScheduleKeyDeletion", m{"KeyId": key, "PendingWindowInDays": days}, "ValidationException")
	}
	said := ok(t, s, "ScheduleKeyDeletion", m{"KeyId": key, "PendingWindowInDays": 7})
	if said["KeyState"] != "PendingDeletion" || said["PendingWindowInDays"] != 7.0 || said["KeyId"] != key {
		t.Errorf("%v", said)
	}
	ok(t, s, "CancelKeyDeletion", m{"KeyId": key})
	if state := ok(t, s, "DescribeKey", m{"KeyId": key})["KeyMetadata"].(m)["KeyState"]; state != "Disabled" {
		t.Errorf("after the deletion was cancelled the key is %v", state)
	}
	ok(t, s, "ScheduleKeyDeletion", m{"KeyId": key})
	now = now.Add(29*24*time.Hour + 23*time.Hour)
	if n := len(s.Keys()); n != 1 {
		t.Errorf("%d keys before the time is over", n)
	}
	now = now.Add(time.Hour)
	if n := len(s.Keys()); n != 0 {
		t.Errorf("%d keys when the time is over", n)
	}
}

// A primary key that has replicas waits for their deletion, and is of no use meanwhile.
func TestDeletionWithReplicas(t *testing.T) {
	s := start(t, awskmsdouble.Options{})
	key := ok(t, s, "CreateKey", m{"KeySpec": "ECC_NIST_P256", "KeyUsage": "SIGN_VERIFY", "MultiRegion": true})["KeyMetadata"].(m)["Arn"].(string)
	s.Replicate(key, "us-east-1")
	config := ok(t, s, "DescribeKey", m{"KeyId": key})["KeyMetadata"].(m)["MultiRegionConfiguration"].(m)
	replicas := config["ReplicaKeys"].([]any)
	if config["MultiRegionKeyType"] != "PRIMARY" || len(replicas) != 1 || replicas[0].(m)["Region"] != "us-east-1" ||
		replicas[0].(m)["Arn"] != strings.Replace(key, "eu-central-1", "us-east-1", 1) {
		t.Errorf("%v", config)
	}
	said := ok(t, s, "ScheduleKeyDeletion", m{"KeyId": key, "PendingWindowInDays": 7})
	if _, dated := said["DeletionDate"]; dated || said["KeyState"] != "PendingReplicaDeletion" {
		t.Errorf("%v", said)
	}
	if a := refused(t, s, "GetPublicKey", m{"KeyId": key}, "KMSInvalidStateException"); a.message != key+" is pending replica deletion." {
		t.Errorf("%s", a.message)
	}
	ok(t, s, "CancelKeyDeletion", m{"KeyId": key})
}

func TestPermissions(t *testing.T) {
	s := start(t, awskmsdouble.Options{})
	key := newKey(t, s, "ECC_NIST_P256")
	body := m{"KeyId": key, "Message": make([]byte, 32), "MessageType": "DIGEST", "SigningAlgorithm": "ECDSA_SHA_256"}
	s.Deny("kms:Sign", "kms:TagResource", "kms:ListKeys")
	a := refused(t, s, "Sign", body, "AccessDeniedException")
	want := "User: arn:aws:iam::111122223333:user/mesh is not authorized to perform: kms:Sign on resource: " + key + " because no identity-based policy allows the kms:Sign action"
	if a.message != want {
		t.Errorf("%s", a.message)
	}
	refused(t, s, "ListKeys", m{}, "AccessDeniedException")
	newKey(t, s, "ECC_NIST_P256")
	refused(t, s, "CreateKey", m{"KeySpec": "ECC_NIST_P256", "KeyUsage": "SIGN_VERIFY", "Tags": []any{m{"TagKey": "a", "TagValue": "1"}}}, "AccessDeniedException")
	s.Heal()
	ok(t, s, "Sign", body)
	locked := ok(t, s, "CreateKey", m{"KeySpec": "ECC_NIST_P256", "KeyUsage": "SIGN_VERIFY", "Policy": `{"Version": "2012-10-17", "Statement": [
		{"Effect": "Allow", "Principal": {"AWS": "arn:aws:iam::111122223333:root"}, "Action": ["kms:Describe*", "kms:PutKeyPolicy", "kms:Sign"], "Resource": "*"},
		{"Effect": "Deny", "Principal": "*", "Action": "kms:Sign", "Resource": "*"}]}`})["KeyMetadata"].(m)["Arn"]
	ok(t, s, "DescribeKey", m{"KeyId": locked})
	refused(t, s, "GetPublicKey", m{"KeyId": locked}, "AccessDeniedException")
	refused(t, s, "Sign", with(body, "KeyId", locked), "AccessDeniedException")
}

func TestLateVisibility(t *testing.T) {
	now := time.Now()
	s := start(t, awskmsdouble.Options{Now: func() time.Time { return now }})
	s.SetDelays(awskmsdouble.Delays{Keys: time.Second, Sign: 2 * time.Second, Tags: 3 * time.Second, Creating: 2 * time.Second})
	made := ok(t, s, "CreateKey", m{"KeySpec": "ECC_NIST_P256", "KeyUsage": "SIGN_VERIFY", "Tags": []any{m{"TagKey": "a", "TagValue": "1"}}})["KeyMetadata"].(m)
	key := m{"KeyId": made["Arn"]}
	sign := with(with(with(key, "Message", make([]byte, 32)), "MessageType", "DIGEST"), "SigningAlgorithm", "ECDSA_SHA_256")
	refused(t, s, "DescribeKey", key, "NotFoundException")
	refused(t, s, "GetPublicKey", key, "NotFoundException")
	if n := len(ok(t, s, "ListKeys", m{})["Keys"].([]any)); n != 0 || len(s.Keys()) != 1 {
		t.Errorf("%d keys are listed", n)
	}
	now = now.Add(time.Second)
	refused(t, s, "GetPublicKey", key, "KMSInvalidStateException")
	refused(t, s, "Sign", sign, "NotFoundException")
	if state := ok(t, s, "DescribeKey", key)["KeyMetadata"].(m)["KeyState"]; state != "Creating" {
		t.Errorf("%v", state)
	}
	now = now.Add(time.Second)
	ok(t, s, "GetPublicKey", key)
	ok(t, s, "Sign", sign)
	if n := len(ok(t, s, "ListResourceTags", key)["Tags"].([]any)); n != 0 {
		t.Errorf("%d tags", n)
	}
	now = now.Add(time.Second)
	if n := len(ok(t, s, "ListResourceTags", key)["Tags"].([]any)); n != 1 {
		t.Errorf("%d tags", n)
	}
}

// DescribeKey may know a key later than lists have it.
func TestListedBeforeDescribed(t *testing.T) {
	now := time.Now()
	s := start(t, awskmsdouble.Options{Now: func() time.Time { return now }})
	s.SetDelays(awskmsdouble.Delays{Describe: time.Second})
	key := m{"KeyId": newKey(t, s, "ECC_NIST_P256")}
	refused(t, s, "DescribeKey", key, "NotFoundException")
	ok(t, s, "GetPublicKey", key)
	if n := len(ok(t, s, "ListKeys", m{})["Keys"].([]any)); n != 1 {
		t.Errorf("%d keys are listed", n)
	}
	now = now.Add(time.Second)
	ok(t, s, "DescribeKey", key)
}

func TestQuota(t *testing.T) {
	now := time.Now()
	s := start(t, awskmsdouble.Options{Now: func() time.Time { return now }})
	s.Limit("ListKeys", 5)
	for i := range 8 {
		if a := ask(t, s, "ListKeys", m{}); (a.kind == "ThrottlingException") != (i >= 5) {
			t.Errorf("request %d: %d %s", i+1, a.status, a.kind)
		}
	}
	now = now.Add(400 * time.Millisecond)
	for i := range 3 {
		if a := ask(t, s, "ListKeys", m{}); (a.kind == "ThrottlingException") != (i >= 2) {
			t.Errorf("request %d, later: %d %s", i+1, a.status, a.kind)
		}
	}
	if n := s.Calls()["ListKeys"]; n != 11 {
		t.Errorf("%d calls were counted", n)
	}
}

func TestFaults(t *testing.T) {
	s := start(t, awskmsdouble.Options{})
	create := raw{op: "CreateKey", body: `{"KeySpec": "ECC_NIST_P256", "KeyUsage": "SIGN_VERIFY"}`}
	for name, c := range map[string]struct {
		fault awskmsdouble.Fault
		keys  int
	}{"cut": {awskmsdouble.Fault{Cut: true}, 0}, "lost": {awskmsdouble.Fault{Lost: true}, 1}} {
		before := len(s.Keys())
		s.Inject(c.fault)
		if _, err := create.send(t, s); !errors.Is(err, io.EOF) || len(s.Keys())-before != c.keys {
			t.Errorf("%s: %v, %d keys were made", name, err, len(s.Keys())-before)
		}
	}
	s.Inject(awskmsdouble.Fault{Op: "Sign", Times: -1, Error: &awskmsdouble.Exception{Type: "KMSInternalException", Status: 500}})
	s.Inject(awskmsdouble.Fault{Op: "ListKeys", Mangle: func(m m) { m["Keys"] = nil }})
	for range 2 {
		if a := ask(t, s, "Sign", m{}); a.status != 500 || a.kind != "KMSInternalException" {
			t.Errorf("%+v", a)
		}
	}
	for i := range 2 {
		if said := ok(t, s, "ListKeys", m{}); (said["Keys"] == nil) != (i == 0) {
			t.Errorf("%d: %v", i, said)
		}
	}
	resume := s.Stall()
	var wg sync.WaitGroup
	wg.Go(func() { ok(t, s, "ListKeys", m{}) })
	for s.Calls()["ListKeys"] < 3 {
		time.Sleep(time.Millisecond)
	}
	resume()
	wg.Wait()
}
