package awskms_test

import (
	"encoding/json"
	"slices"
	"testing"

	"github.com/zonemint/zonemint/backends/awskms"
	"github.com/zonemint/zonemint/backends/check"
	"github.com/zonemint/zonemint/signer"
)

// With the permissions of a policy, and none besides, what the policy is for works and
// nothing else does.
func TestPolicyIsEnoughAndNoMore(t *testing.T) {
	all := []string{
		"kms:CreateKey", "kms:TagResource", "kms:ListKeys", "kms:ListResourceTags", "kms:DescribeKey", "kms:GetPublicKey", "kms:Sign",
		"kms:CreateAlias", "kms:ListAliases", "kms:DisableKey", "kms:EnableKey", "kms:ScheduleKeyDeletion", "kms:CancelKeyDeletion",
		"kms:GetKeyLastUsage",
	}
	for _, c := range []struct {
		create, destroy bool
		fails           string
	}{{false, false, "create"}, {true, false, "destroy"}, {true, true, ""}} {
		var doc struct {
			Statement []struct{ Action []string }
		}
		if err := json.Unmarshal([]byte(awskms.Policy(c.create, c.destroy)), &doc); err != nil {
			t.Fatal(err)
		}
		allowed := map[string]bool{}
		for _, s := range doc.Statement {
			for _, action := range s.Action {
				allowed[action] = true
			}
		}
		s := start(t)
		s.Deny(slices.DeleteFunc(slices.Clone(all), func(action string) bool { return allowed[action] })...)
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
