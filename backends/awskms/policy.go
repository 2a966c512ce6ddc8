package awskms

import "encoding/json"

// Policy returns the least IAM policy, as a JSON document, under which the backend
// works: to sign, if create is set also to make keys, if destroy is set to schedule
// their deletion, with either to find them by their labels. Keys are known after they
// were made, so rights on keys are on all of the account, in whatever partition it is; a
// key policy can narrow them further. See "Identity and Access Management: Actions,
// resources, and condition keys for AWS KMS", and "IAM JSON policy elements: Resource".
func Policy(create, destroy bool) string {
	type statement struct {
		Sid, Effect string
		Action      []string
		Resource    string
	}
	const keys = "arn:*:kms:*:*:key/*"
	statements := []statement{{"Sign", "Allow", []string{"kms:GetPublicKey", "kms:Sign"}, keys}}
	if create {
		statements = append(statements, statement{"MakeKeys", "Allow", []string{"kms:CreateKey", "kms:TagResource"}, "*"})
	}
	if create || destroy {
		statements = append(statements, statement{"FindKeys", "Allow", []string{"kms:ListKeys", "kms:DescribeKey"}, "*"})
	}
	if destroy {
		statements = append(statements, statement{
			"ScheduleDeletion", "Allow", []string{"kms:GetKeyLastUsage", "kms:DisableKey", "kms:ScheduleKeyDeletion"}, keys,
		})
	}
	text, err := json.MarshalIndent(map[string]any{"Version": "2012-10-17", "Statement": statements}, "", "  ")
	if err != nil {
		panic(err) // of strings alone
	}
	return string(text) + "\n"
}
