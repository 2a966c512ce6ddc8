package awskmsdouble

import (
	"encoding/json"
	"path"
	"slices"
)

// caller is the ARN of whoever has the credentials.
func (s *Server) caller() string { return "arn:aws:iam::" + s.opts.Account + ":user/mesh" }

// policy is a key policy, as far as it is looked at: conditions are not.
type policy struct {
	Version   string
	ID        string `json:"Id"`
	Statement []statement
}

type statement struct {
	Sid       string
	Effect    string
	Principal principals
	Action    texts
	Resource  texts
	Condition json.RawMessage
}

// texts is one text or a list of them.
type texts []string

// UnmarshalJSON implements [json.Unmarshaler].
func (t *texts) UnmarshalJSON(raw []byte) error {
	var one string
	if json.Unmarshal(raw, &one) == nil {
		*t = texts{one}
		return nil
	}
	return json.Unmarshal(raw, (*[]string)(t))
}

// principals is "*", or names by their kind, of which AWS is looked at.
type principals []string

// UnmarshalJSON implements [json.Unmarshaler].
func (p *principals) UnmarshalJSON(raw []byte) error {
	var all string
	if json.Unmarshal(raw, &all) == nil {
		*p = principals{all}
		return nil
	}
	var kinds map[string]texts
	if err := json.Unmarshal(raw, &kinds); err != nil {
		return err
	}
	*p = principals(kinds["AWS"])
	return nil
}

// parsePolicy reads a policy of a new key. It has to leave the caller the right to
// change it, or nobody might have that.
func (s *Server) parsePolicy(text string, anyway bool) (*policy, *Exception) {
	const mostBytes = 32 << 10 // a quota, which "Resource quotas" has
	if len(text) > mostBytes {
		return nil, refuse("LimitExceededException", "The key policy document is too long")
	}
	p := &policy{}
	if err := json.Unmarshal([]byte(text), p); err != nil || len(p.Statement) == 0 || p.Version != "2012-10-17" && p.Version != "2008-10-17" {
		return nil, refuse("MalformedPolicyDocumentException", "Syntax errors in policy")
	}
	for _, st := range p.Statement {
		if len(st.Principal) == 0 {
			return nil, refuse("MalformedPolicyDocumentException", "Policy contains a statement with one or more invalid principals.")
		}
	}
	if !anyway && !p.allows(s, "kms:PutKeyPolicy") {
		return nil, refuse("MalformedPolicyDocumentException", "The new key policy will not allow you to update the key policy in the future.")
	}
	return p, nil
}

// allows says whether a policy lets the caller act, or leaves that to IAM. No policy
// is the default one, which does the latter.
func (p *policy) allows(s *Server, action string) bool {
	if p == nil {
		return true
	}
	allowed := false
	for _, st := range p.Statement {
		about := len(st.Resource) > 0 && slices.ContainsFunc(st.Action, func(pattern string) bool {
			fits, err := path.Match(pattern, action)
			return fits && err == nil
		})
		me := slices.ContainsFunc(st.Principal, func(name string) bool {
			return name == "*" || name == s.caller() || name == s.opts.Account || name == "arn:aws:iam::"+s.opts.Account+":root"
		})
		if about && me && st.Effect == "Deny" {
			return false
		}
		allowed = allowed || about && me && st.Effect == "Allow"
	}
	return allowed
}

// authorize refuses what IAM or the key's policy does not allow. The lock is held.
func (s *Server) authorize(action, resource string, k *key) *Exception {
	var why string
	switch {
	case s.denied[action]:
		why = "identity-based"
	case k != nil && !k.policy.allows(s, action):
		why = "resource-based"
	default:
		return nil
	}
	return refuse("AccessDeniedException", "User: %s is not authorized to perform: %s on resource: %s because no %s policy allows the %s action",
		s.caller(), action, resource, why, action)
}
