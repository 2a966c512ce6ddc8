package awskmsdouble

import (
	"cmp"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"
)

type alias struct {
	name, target string
	created      time.Time
}

type createAliasRequest struct {
	AliasName   string
	TargetKeyId string
}

func createAlias(s *Server, body []byte) (any, *Exception) {
	const longest = 256
	var in createAliasRequest
	if e := decode(body, &in); e != nil {
		return nil, e
	}
	switch {
	case in.AliasName == "" || len(in.AliasName) > longest:
		return nil, invalid(in.AliasName, "aliasName", "have length between 1 and 256")
	case !regexp.MustCompile(`^alias/[a-zA-Z0-9/_-]+$`).MatchString(in.AliasName):
		return nil, refuse("InvalidAliasNameException", "Alias must start with the prefix \"alias/\" and have letters, digits, '/', '_' and '-' only.")
	case strings.HasPrefix(in.AliasName, "alias/aws/"):
		return nil, refuse("NotAuthorizedException", "Alias names that begin with alias/aws/ are reserved.")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.authorize("kms:CreateAlias", "arn:aws:kms:"+s.opts.Region+":"+s.opts.Account+":"+in.AliasName, nil); e != nil {
		return nil, e
	}
	if _, there := s.aliases[in.AliasName]; there {
		return nil, refuse("AlreadyExistsException", "An alias with the name arn:aws:kms:%s:%s:%s already exists", s.opts.Region, s.opts.Account, in.AliasName)
	}
	k, e := s.find("kms:CreateAlias", in.TargetKeyId, false)
	if e != nil {
		return nil, e
	}
	if e := k.refuseUnless(s.opts.Now(), Enabled, Disabled); e != nil {
		return nil, e
	}
	s.aliases[in.AliasName] = &alias{in.AliasName, k.id, s.opts.Now()}
	return nil, nil
}

// SetAlias points an alias at a key, as UpdateAlias does.
func (s *Server) SetAlias(name, arn string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if k := s.byARN(arn); k != nil {
		s.aliases[name] = &alias{name, k.id, s.opts.Now()}
	}
}

type listAliasesRequest struct {
	KeyId  string
	Limit  *int
	Marker *string
}

func listAliases(s *Server, body []byte) (any, *Exception) {
	var in listAliasesRequest
	if e := decode(body, &in); e != nil {
		return nil, e
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.authorize("kms:ListAliases", "*", nil); e != nil {
		return nil, e
	}
	only := ""
	if in.KeyId != "" {
		k, e := s.resolve(in.KeyId, false)
		if e != nil {
			return nil, e
		}
		only = k.id
	}
	all := slices.SortedFunc(maps.Values(s.aliases), func(a, b *alias) int { return cmp.Compare(a.name, b.name) })
	all = slices.DeleteFunc(all, func(a *alias) bool { return only != "" && a.target != only })
	part, next, e := page(all, func(a *alias) string { return a.name }, in.Limit, in.Marker, 50, 100)
	if e != nil {
		return nil, e
	}
	entries := []map[string]any{}
	for _, a := range part {
		entries = append(entries, map[string]any{
			"AliasName": a.name, "AliasArn": "arn:aws:kms:" + s.opts.Region + ":" + s.opts.Account + ":" + a.name, "TargetKeyId": a.target,
			"CreationDate": timestamp(a.created), "LastUpdatedDate": timestamp(a.created),
		})
	}
	return answerPage("Aliases", entries, next), nil
}
