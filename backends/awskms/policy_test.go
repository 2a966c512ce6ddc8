package awskms_test

import (
	"encoding/json"
	"slices"
	"testing"

	"github.com/zonemint/zonemint/backends/awskms"
	"github.com/zonemint/zonemint/backends/check"
	"github.com/zonemint/zonemint/integration/awskmsdouble"
	"github.com/zonemint/zonemint/signer"
)

// grant leaves the caller the permissions of a policy, and no others.
func grant(t *testing.T, s *awskmsdouble.Server, policy string) {
	t.Helper()
	all := []string{
		"kms:CreateKey", "kms:TagResource", "kms:ListKeys", "kms:ListResourceTags", "kms:DescribeKey", "kms:GetPublicKey", "kms:Sign",
		"kms:CreateAlias", "kms:ListAliases", "kms:DisableKey", "kms:EnableKey", "kms:ScheduleKeyDeletion", "kms:CancelKeyDeletion",
		"kms:GetKeyLastUsage",
	}
	var doc struct {
		Statement []struct {
			Action   []string
			Resource string
		}
	}
	if err := json.Unmarshal([]byte(policy), &doc); err != nil {
		t.Fatal(err)
	}
	for _, st := range doc.Statement {
		if st.Resource != "*" && st.Resource != "arn:*:kms:*:*:key/*" {
			t.Errorf("%s is not for every partition", st.Resource)
		}
		all = slices.DeleteFunc(all, func(action string) bool { return slices.Contains(st.Action, action) })
	}
	s.Deny(all...)
}

// With the permissions of a policy, and none besides, what the policy is for works and
// nothing else does.
func TestPolicyIsEnoughAndNoMore(t *testing.T) {
	for _, c := range []struct {
		create, destroy bool
		fails           string
	}{{false, false, "create"}, {true, false, "destroy"}, {false, true, "create"}, {true, true, ""}} {
		s := start(t)
		grant(t, s, awskms.Policy(c.create, c.destroy))
		failed := ""
		for _, step := range check.Run(t.Context(), open(t, options(s)), check.Options{Algorithm: signer.ES256, Signatures: 2}) {
			if step.Err != nil && failed == "" {
				failed = step.Name
			}
		}
		if failed != c.fails {
			t.Errorf("create %t, destroy %t: %q fails, want %q", c.create, c.destroy, failed, c.fails)
		}
	}
}

// Who destroys keys and makes none has to find what a creation has left behind.
func TestPolicyToDestroy(t *testing.T) {
	s := start(t)
	b := open(t, options(s))
	spec := newSpec(signer.ES256)
	create(t, b, spec)
	grant(t, s, awskms.Policy(false, true))
	refs, err := signer.Find(t.Context(), b, spec)
	if err != nil || len(refs) != 1 {
		t.Fatalf("%q, %v", refs, err)
	}
	if err := signer.Destroy(t.Context(), b, spec, refs[0]); err != nil {
		t.Error(err)
	}
}
