package awskmsdouble_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/zonemint/zonemint/integration/awskmsdouble"
)

// Requests that are not signed as they have to be are refused, and have no effect.
func TestSignaturesOfRequests(t *testing.T) {
	s := start(t, awskmsdouble.Options{SessionToken: "session"})
	create := raw{op: "CreateKey", body: `{"KeySpec": "ECC_NIST_P256", "KeyUsage": "SIGN_VERIFY"}`}
	for name, c := range map[string]struct {
		change func(*raw)
		want   string
	}{
		"another secret":     {func(r *raw) { r.secret = "other" }, "InvalidSignatureException"},
		"another access key": {func(r *raw) { r.keyID = "AKIAOTHER" }, "UnrecognizedClientException"},
		"another region":     {func(r *raw) { r.region = "us-east-1" }, "InvalidSignatureException"},
		"another service":    {func(r *raw) { r.service = "s3" }, "InvalidSignatureException"},
		"too old":            {func(r *raw) { r.at = time.Now().Add(-6 * time.Minute) }, "InvalidSignatureException"},
		"of the future":      {func(r *raw) { r.at = time.Now().Add(6 * time.Minute) }, "InvalidSignatureException"},
		"no session token":   {func(r *raw) { r.after = func(q *http.Request) { q.Header.Del("X-Amz-Security-Token") } }, "UnrecognizedClientException"},
		"another session":    {func(r *raw) { r.after = func(q *http.Request) { q.Header.Set("X-Amz-Security-Token", "x") } }, "UnrecognizedClientException"},
		"unsigned":           {func(r *raw) { r.after = func(q *http.Request) { q.Header.Del("Authorization") } }, "MissingAuthenticationTokenException"},
		"signed by somebody": {func(r *raw) { r.after = func(q *http.Request) { q.Header.Set("Authorization", "Basic bWU6bWU=") } }, "IncompleteSignatureException"},
		"no date":            {func(r *raw) { r.after = func(q *http.Request) { q.Header.Del("X-Amz-Date") } }, "IncompleteSignatureException"},
		"another date": {func(r *raw) {
			r.after = func(q *http.Request) {
				q.Header.Set("X-Amz-Date", time.Now().UTC().Add(time.Second).Format("20060102T150405Z"))
			}
		}, "InvalidSignatureException"},
		"another operation": {func(r *raw) {
			r.after = func(q *http.Request) { q.Header.Set("X-Amz-Target", "TrentService.ListKeys") }
		}, "InvalidSignatureException"},
		"a header on the way": {func(r *raw) { r.after = func(q *http.Request) { q.Header.Set("X-Amz-Extra", "x") } }, "InvalidSignatureException"},
		"another host":        {func(r *raw) { r.after = func(q *http.Request) { q.Host = "kms.us-east-1.amazonaws.com" } }, "InvalidSignatureException"},
		"another body": {func(r *raw) {
			r.after = func(q *http.Request) {
				text := strings.Replace(r.body, "P256", "P384", 1)
				body, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://x", strings.NewReader(text))
				if err != nil {
					t.Fatal(err)
				}
				q.Body, q.ContentLength = body.Body, body.ContentLength
			}
		}, "InvalidSignatureException"},
		"as text":               {func(r *raw) { r.contentType = "application/json" }, "SerializationException"},
		"with another verb":     {func(r *raw) { r.method = http.MethodPut }, "UnknownOperationException"},
		"for nothing known":     {func(r *raw) { r.op = "Encrypt" }, "UnknownOperationException"},
		"of another service":    {func(r *raw) { r.before = func(q *http.Request) { q.Header.Set("X-Amz-Target", "DynamoDB.ListTables") } }, "UnknownOperationException"},
		"two headers as signed": {func(r *raw) { r.before = func(q *http.Request) { q.Header.Set("X-Amz-Meta", "a   b") } }, ""},
		"as it has to be":       {func(*raw) {}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			before := len(s.Keys())
			r := create
			c.change(&r)
			a, err := r.send(t, s)
			if err != nil {
				t.Fatal(err)
			}
			if made := len(s.Keys()) - before; a.kind != c.want || (made == 1) != (c.want == "") {
				t.Errorf("%d %s: %s; want %q; %d keys made", a.status, a.kind, a.message, c.want, made)
			}
		})
	}
	// As the service does, it quotes the request with the session token in it.
	r := create
	r.secret = "other"
	if a, err := r.send(t, s); err != nil || !strings.Contains(a.message, "x-amz-security-token:session") {
		t.Errorf("%v: %s", err, a.message)
	}
}

// Every operation refuses what is not in its own form.
func TestForm(t *testing.T) {
	s := start(t, awskmsdouble.Options{})
	key := newKey(t, s, "ECC_NIST_P256")
	for _, op := range []string{"CreateKey", "DescribeKey", "ListKeys", "TagResource", "ListResourceTags", "CreateAlias", "ListAliases", "GetPublicKey",
		"Sign", "GetKeyLastUsage", "EnableKey", "DisableKey", "ScheduleKeyDeletion", "CancelKeyDeletion"} {
		for _, body := range []string{"", "x", "[]", `{"KeyId": 7}`, `{"Unknown": 1}`, `{"keyid": "x"}`} {
			if (op == "CreateKey" || op == "ListKeys") && body == `{"KeyId": 7}` {
				continue // has no such member at all
			}
			refused(t, s, op, body, "SerializationException")
		}
	}
	for _, op := range []string{"DescribeKey", "ListResourceTags", "GetPublicKey", "GetKeyLastUsage", "EnableKey", "DisableKey", "ScheduleKeyDeletion", "CancelKeyDeletion"} {
		refused(t, s, op, m{}, "ValidationException")
		refused(t, s, op, m{"KeyId": strings.Repeat("x", 2049)}, "ValidationException")
		refused(t, s, op, m{"KeyId": "1234abcd-12ab-34cd-56ef-1234567890ab"}, "NotFoundException")
		refused(t, s, op, m{"KeyId": strings.Replace(key, "eu-central-1", "us-east-1", 1)}, "NotFoundException")
		refused(t, s, op, m{"KeyId": "arn:aws:s3:::bucket"}, "InvalidArnException")
	}
	s.SetAlias("alias/there", key)
	for _, op := range []string{"ListResourceTags", "GetKeyLastUsage", "EnableKey", "DisableKey", "ScheduleKeyDeletion", "CancelKeyDeletion"} {
		refused(t, s, op, m{"KeyId": "alias/there"}, "NotFoundException")
	}
	for _, op := range []string{"DescribeKey", "GetPublicKey"} {
		ok(t, s, op, m{"KeyId": "alias/there"})
		ok(t, s, op, m{"KeyId": "arn:aws:kms:eu-central-1:111122223333:alias/there"})
		ok(t, s, op, m{"KeyId": key[strings.LastIndexByte(key, '/')+1:]})
		refused(t, s, op, m{"KeyId": "alias/nowhere"}, "NotFoundException")
	}
}

func TestRefusedKeys(t *testing.T) {
	s := start(t, awskmsdouble.Options{})
	good := m{"KeySpec": "ECC_NIST_P256", "KeyUsage": "SIGN_VERIFY"}
	tag := func(key, value string) []any { return []any{m{"TagKey": key, "TagValue": value}} }
	policy := func(principal, action string) string {
		return `{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": ` + principal + `, "Action": "` + action + `", "Resource": "*"}]}`
	}
	var many []any
	for i := range 51 {
		many = append(many, m{"TagKey": strings.Repeat("k", i+1), "TagValue": ""})
	}
	for _, c := range []struct {
		body m
		want string
	}{
		{with(good, "KeyUsage", nil), "ValidationException"},
		{with(good, "KeyUsage", "SIGN"), "ValidationException"},
		{with(good, "KeyUsage", "ENCRYPT_DECRYPT"), "ValidationException"},
		{with(good, "KeySpec", "ECC_NIST_P224"), "ValidationException"},
		{with(good, "KeySpec", "SYMMETRIC_DEFAULT"), "ValidationException"},
		{with(good, "CustomerMasterKeySpec", "ECC_NIST_P256"), "ValidationException"},
		{with(good, "Description", strings.Repeat("x", 8193)), "ValidationException"},
		{with(good, "Origin", "EXTERNAL"), "UnsupportedOperationException"},
		{with(good, "Tags", tag("", "x")), "ValidationException"},
		{with(good, "Tags", tag(strings.Repeat("k", 129), "x")), "ValidationException"},
		{with(good, "Tags", tag("k", strings.Repeat("v", 257))), "ValidationException"},
		{with(good, "Tags", []any{m{"TagKey": "k"}}), "ValidationException"},
		{with(good, "Tags", tag("k", "*")), "TagException"},
		{with(good, "Tags", tag("aws:k", "v")), "TagException"},
		{with(good, "Tags", append(tag("k", "v"), tag("k", "w")...)), "TagException"},
		{with(good, "Tags", many), "TagException"},
		{with(good, "Policy", "Version: 2012"), "MalformedPolicyDocumentException"},
		{with(good, "Policy", `{"Version": "2012-10-17", "Statement": []}`), "MalformedPolicyDocumentException"},
		{with(good, "Policy", `{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "kms:*", "Resource": "*"}]}`), "MalformedPolicyDocumentException"},
		{with(good, "Policy", policy(`"*"`, "kms:Sign")), "MalformedPolicyDocumentException"},
		{with(good, "Policy", policy(`{"AWS": "arn:aws:iam::111122223333:user/other"}`, "kms:*")), "MalformedPolicyDocumentException"},
		{with(good, "Policy", policy(`"*"`, "kms:*")+strings.Repeat(" ", 32<<10)), "LimitExceededException"},
	} {
		refused(t, s, "CreateKey", c.body, c.want)
	}
	if n := len(s.Keys()); n != 0 {
		t.Errorf("%d keys were made", n)
	}
	ok(t, s, "CreateKey", with(good, "Policy", policy(`{"AWS": ["arn:aws:iam::111122223333:root"]}`, "kms:*")))
	s.SetKeyQuota(1)
	refused(t, s, "CreateKey", good, "LimitExceededException")
}

func TestRefusedSignatures(t *testing.T) {
	s := start(t, awskmsdouble.Options{})
	p256, rsa, ed := newKey(t, s, "ECC_NIST_P256"), newKey(t, s, "RSA_2048"), newKey(t, s, "ECC_NIST_EDWARDS25519")
	cipher, err := s.Plant(awskmsdouble.Planted{Spec: "SYMMETRIC_DEFAULT"})
	if err != nil {
		t.Fatal(err)
	}
	good := m{"KeyId": p256, "Message": make([]byte, 32), "MessageType": "DIGEST", "SigningAlgorithm": "ECDSA_SHA_256"}
	ed25519 := m{"KeyId": ed, "Message": []byte("x"), "MessageType": "RAW", "SigningAlgorithm": "ED25519_SHA_512"}
	for _, c := range []struct {
		body m
		want string
	}{
		{with(good, "Message", make([]byte, 31)), "ValidationException"},
		{with(good, "Message", make([]byte, 33)), "ValidationException"},
		{with(good, "Message", make([]byte, 48)), "ValidationException"},
		{with(good, "Message", []byte{}), "ValidationException"},
		{with(good, "Message", nil), "ValidationException"},
		{with(with(good, "MessageType", "RAW"), "Message", make([]byte, 4097)), "ValidationException"},
		{with(with(good, "MessageType", nil), "Message", make([]byte, 4097)), "ValidationException"},
		{with(ed25519, "Message", make([]byte, 4097)), "ValidationException"},
		{with(ed25519, "MessageType", "DIGEST"), "ValidationException"},
		{with(good, "MessageType", "HASH"), "ValidationException"},
		{with(good, "SigningAlgorithm", "ES256"), "ValidationException"},
		{with(good, "SigningAlgorithm", nil), "ValidationException"},
		{with(good, "KeyId", ""), "ValidationException"},
		{with(good, "SigningAlgorithm", "RSASSA_PKCS1_V1_5_SHA_256"), "InvalidKeyUsageException"},
		{with(with(good, "SigningAlgorithm", "ECDSA_SHA_384"), "Message", make([]byte, 48)), "InvalidKeyUsageException"},
		{with(good, "KeyId", rsa), "InvalidKeyUsageException"},
		{with(good, "KeyId", ed), "InvalidKeyUsageException"},
		{with(good, "KeyId", cipher), "InvalidKeyUsageException"},
		{with(good, "GrantTokens", []string{"x"}), "InvalidGrantTokenException"},
		{with(good, "DryRun", true), "DryRunOperationException"},
		{with(good, "KeyId", "alias/none"), "NotFoundException"},
	} {
		refused(t, s, "Sign", c.body, c.want)
	}
	if usage := ok(t, s, "GetKeyLastUsage", m{"KeyId": p256})["KeyLastUsage"].(m); len(usage) != 0 {
		t.Errorf("used without a signature: %v", usage)
	}
	ok(t, s, "Sign", good)
	ok(t, s, "Sign", ed25519)
	refused(t, s, "GetPublicKey", m{"KeyId": cipher}, "UnsupportedOperationException")
}

// The table of "Key states of AWS KMS keys", as far as it is about asymmetric keys.
func TestKeyStates(t *testing.T) {
	s := start(t, awskmsdouble.Options{})
	body := func(op, key string) m {
		switch op {
		case "Sign":
			return m{"KeyId": key, "Message": make([]byte, 32), "MessageType": "DIGEST", "SigningAlgorithm": "ECDSA_SHA_256"}
		case "TagResource":
			return m{"KeyId": key, "Tags": []any{m{"TagKey": "k", "TagValue": "v"}}}
		case "CreateAlias":
			return m{"TargetKeyId": key, "AliasName": "alias/" + key[strings.LastIndexByte(key, '/')+1:]}
		default:
			return m{"KeyId": key}
		}
	}
	const invalid = "KMSInvalidStateException"
	for op, want := range map[string][3]string{ // when enabled, disabled, pending deletion
		"CancelKeyDeletion": {invalid, invalid, ""}, "CreateAlias": {"", "", invalid}, "DescribeKey": {}, "DisableKey": {"", "", invalid},
		"EnableKey": {"", "", invalid}, "GetPublicKey": {"", "DisabledException", invalid}, "ListResourceTags": {}, "ScheduleKeyDeletion": {"", "", invalid},
		"Sign": {"", "DisabledException", invalid}, "TagResource": {"", "", invalid}, "GetKeyLastUsage": {}, "ListAliases": {},
	} {
		for i, state := range []string{awskmsdouble.Enabled, awskmsdouble.Disabled, awskmsdouble.PendingDeletion} {
			key := newKey(t, s, "ECC_NIST_P256")
			s.SetState(key, state)
			if want[i] == "" {
				ok(t, s, op, body(op, key))
			} else {
				refused(t, s, op, body(op, key), want[i])
			}
		}
	}
}

func TestAliases(t *testing.T) {
	s := start(t, awskmsdouble.Options{})
	key := newKey(t, s, "ECC_NIST_P256")
	good := m{"AliasName": "alias/mesh/1", "TargetKeyId": key}
	refused(t, s, "CreateAlias", with(good, "AliasName", "mesh"), "InvalidAliasNameException")
	refused(t, s, "CreateAlias", with(good, "AliasName", "alias/mesh.1"), "InvalidAliasNameException")
	refused(t, s, "CreateAlias", with(good, "AliasName", "alias/"+strings.Repeat("x", 251)), "ValidationException")
	refused(t, s, "CreateAlias", with(good, "AliasName", "alias/aws/mesh"), "NotAuthorizedException")
	refused(t, s, "CreateAlias", with(good, "TargetKeyId", "alias/other"), "NotFoundException")
	ok(t, s, "CreateAlias", good)
	refused(t, s, "CreateAlias", good, "AlreadyExistsException")
	listed := ok(t, s, "ListAliases", m{"KeyId": key})["Aliases"].([]any)
	if len(listed) != 1 || listed[0].(m)["AliasName"] != "alias/mesh/1" || !strings.HasSuffix(key, listed[0].(m)["TargetKeyId"].(string)) {
		t.Errorf("%v", listed)
	}
}
