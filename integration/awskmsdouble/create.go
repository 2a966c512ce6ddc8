package awskmsdouble

import (
	"cmp"
	"regexp"
	"strings"
)

type tag struct{ TagKey, TagValue *string }

type createKeyRequest struct {
	BypassPolicyLockoutSafetyCheck bool
	CustomerMasterKeySpec          string
	Description                    string
	KeySpec                        string
	KeyUsage                       string
	MultiRegion                    bool
	Origin                         string
	Policy                         *string
	Tags                           []tag
}

func (in createKeyRequest) check() *Exception {
	const longest = 8192
	spec := cmp.Or(in.KeySpec, in.CustomerMasterKeySpec, symmetric)
	switch {
	case in.KeySpec != "" && in.CustomerMasterKeySpec != "":
		return refuse("ValidationException", "You cannot specify KeySpec and CustomerMasterKeySpec in the same request. CustomerMasterKeySpec is deprecated.")
	case len(in.Description) > longest:
		return invalid("…", "description", "have length less than or equal to 8192")
	case spec != symmetric && signingAlgorithms(spec) == nil:
		return invalid(spec, "keySpec", "satisfy enum value set")
	case in.KeyUsage != "" && in.KeyUsage != "SIGN_VERIFY" && in.KeyUsage != "ENCRYPT_DECRYPT":
		return invalid(in.KeyUsage, "keyUsage", "satisfy enum value set")
	case spec != symmetric && in.KeyUsage == "":
		return refuse("ValidationException", "You must specify a KeyUsage value for all KMS keys except for symmetric encryption keys.")
	case spec == symmetric && in.KeyUsage == "SIGN_VERIFY", strings.HasPrefix(spec, "ECC_") && in.KeyUsage != "SIGN_VERIFY":
		return refuse("ValidationException", "KeyUsage %s is not compatible with KeySpec %s", in.KeyUsage, spec)
	case in.Origin != "" && in.Origin != "AWS_KMS":
		return refuse("UnsupportedOperationException", "the double makes keys of the origin AWS_KMS only")
	}
	return nil
}

func createKey(s *Server, body []byte) (any, *Exception) {
	var in createKeyRequest
	if e := decode(body, &in); e != nil {
		return nil, e
	}
	if e := in.check(); e != nil {
		return nil, e
	}
	tags, e := parseTags(in.Tags)
	if e != nil {
		return nil, e
	}
	spec := cmp.Or(in.KeySpec, in.CustomerMasterKeySpec, symmetric)
	private, err := generate(spec)
	if err != nil {
		return nil, &Exception{Type: "KMSInternalException", Message: err.Error(), Status: 500}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.mayCreate(in); e != nil {
		return nil, e
	}
	k := s.newKey(spec, cmp.Or(in.KeyUsage, "ENCRYPT_DECRYPT"), private, in.MultiRegion)
	if in.Policy != nil {
		if k.policy, e = s.parsePolicy(*in.Policy, in.BypassPolicyLockoutSafetyCheck); e != nil {
			return nil, e
		}
	}
	k.description, k.tags = in.Description, tags
	s.keys[k.id] = k
	return map[string]any{"KeyMetadata": s.metadata(k)}, nil
}

// mayCreate looks at permissions and quotas. The lock is held.
func (s *Server) mayCreate(in createKeyRequest) *Exception {
	if e := s.authorize("kms:CreateKey", "*", nil); e != nil {
		return e
	}
	if len(in.Tags) > 0 {
		if e := s.authorize("kms:TagResource", "*", nil); e != nil {
			return e
		}
	}
	if s.quota > 0 && len(s.sorted()) >= s.quota {
		return refuse("LimitExceededException", "You have reached the quota of %d KMS keys.", s.quota)
	}
	return nil
}

// parseTags refuses what TagResource refuses.
func parseTags(list []tag) (map[string]string, *Exception) {
	const most, longestKey, longestValue = 50, 128, 256
	fine := regexp.MustCompile(`^[\p{L}\p{Z}\p{N}_.:/=+\-@]*$`)
	tags := map[string]string{}
	for _, t := range list {
		if t.TagKey == nil || t.TagValue == nil {
			return nil, invalid("null", "tags.member", "not be null")
		}
		name, value := *t.TagKey, *t.TagValue
		switch _, twice := tags[name]; {
		case name == "" || len([]rune(name)) > longestKey:
			return nil, invalid(name, "tags.member.tagKey", "have length between 1 and 128")
		case len([]rune(value)) > longestValue:
			return nil, invalid(value, "tags.member.tagValue", "have length less than or equal to 256")
		case !fine.MatchString(name + value):
			return nil, refuse("TagException", "Tag keys and values can have letters, numbers, spaces and _ . / = + - : @")
		case strings.HasPrefix(strings.ToLower(name), "aws:"):
			return nil, refuse("TagException", "aws: prefixed tag key names are not allowed for external use.")
		case twice:
			return nil, refuse("TagException", "Duplicate tag keys")
		}
		tags[name] = value
	}
	if len(tags) > most {
		return nil, refuse("TagException", "Too many tags")
	}
	return tags, nil
}

// metadata is what the service says of a key. The lock is held.
func (s *Server) metadata(k *key) map[string]any {
	state := k.stateAt(s.opts.Now())
	m := map[string]any{
		"AWSAccountId": s.opts.Account, "Arn": k.arn, "KeyId": k.id, "CreationDate": timestamp(k.created), "Description": k.description,
		"Enabled": state == Enabled, "KeyState": state, "KeyManager": k.manager, "KeySpec": k.spec, "CustomerMasterKeySpec": k.spec,
		"KeyUsage": k.usage, "Origin": k.origin, "MultiRegion": k.multiRegion,
	}
	switch k.usage {
	case "SIGN_VERIFY":
		m["SigningAlgorithms"] = signingAlgorithms(k.spec)
	default:
		m["EncryptionAlgorithms"] = []string{symmetric}
	}
	if k.multiRegion {
		self := map[string]string{"Arn": k.arn, "Region": s.opts.Region}
		replicas := []map[string]string{}
		for _, region := range k.replicas {
			replicas = append(replicas, map[string]string{"Arn": strings.Replace(k.arn, s.opts.Region, region, 1), "Region": region})
		}
		m["MultiRegionConfiguration"] = map[string]any{"MultiRegionKeyType": "PRIMARY", "PrimaryKey": self, "ReplicaKeys": replicas}
	}
	if state == PendingDeletion {
		m["DeletionDate"] = timestamp(k.deletion)
	}
	return m
}
