package awskmsdouble

import (
	"crypto/x509"
	"maps"
	"slices"
)

type keyRequest struct {
	KeyId       string
	GrantTokens []string
}

func (in keyRequest) checkGrants() *Exception {
	if len(in.GrantTokens) > 0 {
		return refuse("InvalidGrantTokenException", "there are no grants")
	}
	return nil
}

func describeKey(s *Server, body []byte) (any, *Exception) {
	var in keyRequest
	if e := decode(body, &in); e != nil {
		return nil, e
	}
	if e := in.checkGrants(); e != nil {
		return nil, e
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	k, e := s.find("kms:DescribeKey", in.KeyId, true)
	if e != nil {
		return nil, e
	}
	return map[string]any{"KeyMetadata": s.metadata(k)}, nil
}

func getPublicKey(s *Server, body []byte) (any, *Exception) {
	var in keyRequest
	if e := decode(body, &in); e != nil {
		return nil, e
	}
	if e := in.checkGrants(); e != nil {
		return nil, e
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	k, e := s.find("kms:GetPublicKey", in.KeyId, true)
	if e != nil {
		return nil, e
	}
	if e := k.refuseUnless(s.opts.Now(), Enabled); e != nil {
		return nil, e
	}
	if k.private == nil {
		return nil, refuse("UnsupportedOperationException", "%s key spec is %s which is not valid for GetPublicKey.", k.arn, k.spec)
	}
	der, err := x509.MarshalPKIXPublicKey(k.private.Public())
	if err != nil {
		return nil, &Exception{Type: "KMSInternalException", Message: err.Error(), Status: 500}
	}
	return map[string]any{
		"KeyId": k.arn, "PublicKey": der, "KeySpec": k.spec, "CustomerMasterKeySpec": k.spec, "KeyUsage": k.usage, "SigningAlgorithms": signingAlgorithms(k.spec),
	}, nil
}

type pageRequest struct {
	Limit  *int
	Marker *string
}

// answerPage adds what all answers in pages have.
func answerPage(member string, part any, next *string) map[string]any {
	answer := map[string]any{member: part, "Truncated": next != nil}
	if next != nil {
		answer["NextMarker"] = *next
	}
	return answer
}

func listKeys(s *Server, body []byte) (any, *Exception) {
	var in pageRequest
	if e := decode(body, &in); e != nil {
		return nil, e
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.authorize("kms:ListKeys", "*", nil); e != nil {
		return nil, e
	}
	now := s.opts.Now()
	all := slices.DeleteFunc(s.sorted(), func(k *key) bool { return now.Before(k.visible) })
	part, next, e := page(all, func(k *key) string { return k.id }, in.Limit, in.Marker, 100, 1000)
	if e != nil {
		return nil, e
	}
	entries := []map[string]string{}
	for _, k := range part {
		entries = append(entries, map[string]string{"KeyId": k.id, "KeyArn": k.arn})
	}
	return answerPage("Keys", entries, next), nil
}

type tagRequest struct {
	KeyId string
	Tags  []tag
}

func tagResource(s *Server, body []byte) (any, *Exception) {
	var in tagRequest
	if e := decode(body, &in); e != nil {
		return nil, e
	}
	tags, e := parseTags(in.Tags)
	if e != nil {
		return nil, e
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	k, e := s.find("kms:TagResource", in.KeyId, false)
	if e != nil {
		return nil, e
	}
	if e := k.refuseUnless(s.opts.Now(), Enabled, Disabled); e != nil {
		return nil, e
	}
	const most = 50
	merged := maps.Clone(k.tags)
	if merged == nil {
		merged = map[string]string{}
	}
	if maps.Copy(merged, tags); len(merged) > most {
		return nil, refuse("TagException", "Too many tags")
	}
	k.tags = merged
	return nil, nil
}

type listTagsRequest struct {
	KeyId  string
	Limit  *int
	Marker *string
}

func listResourceTags(s *Server, body []byte) (any, *Exception) {
	var in listTagsRequest
	if e := decode(body, &in); e != nil {
		return nil, e
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	k, e := s.find("kms:ListResourceTags", in.KeyId, false)
	if e != nil {
		return nil, e
	}
	var names []string
	if !s.opts.Now().Before(k.tagged) {
		names = slices.Sorted(maps.Keys(k.tags))
	}
	part, next, e := page(names, func(name string) string { return name }, in.Limit, in.Marker, 50, 50)
	if e != nil {
		return nil, e
	}
	tags := []map[string]string{}
	for _, name := range part {
		tags = append(tags, map[string]string{"TagKey": name, "TagValue": k.tags[name]})
	}
	return answerPage("Tags", tags, next), nil
}
