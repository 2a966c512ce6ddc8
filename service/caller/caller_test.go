package caller_test

import (
	"errors"
	"testing"
	"time"

	"github.com/zonemint/zonemint/service/caller"
	"github.com/zonemint/zonemint/store"
)

func withRoles(roles ...string) caller.Caller {
	return caller.Caller{Name: "api-token/test", Token: store.APIToken{Roles: roles}}
}

func bounded(t store.APIToken) caller.Caller { return caller.Caller{Token: t} }

// want checks that err is ErrForbidden, or nil if the act is allowed.
func want(t *testing.T, allowed bool, err error, what string) {
	t.Helper()
	if allowed != (err == nil) || (err != nil && !errors.Is(err, caller.ErrForbidden)) {
		t.Errorf("%s: %v, allowed should be %t", what, err, allowed)
	}
}

func TestMayCallDeniesByDefault(t *testing.T) {
	table := map[string][]caller.Role{"/a": {caller.Issuer}, "/nobody": {}, "/nil": nil}
	for _, c := range []struct {
		roles  []string
		method string
		allow  bool
	}{
		{[]string{"issuer"}, "/a", true},
		{[]string{"auditor", "issuer"}, "/a", true},
		{[]string{"admin"}, "/a", false}, // the table says who, no role is above it
		{nil, "/a", false},
		{[]string{""}, "/a", false},
		{[]string{"ISSUER"}, "/a", false},
		{[]string{"issuer"}, "/b", false},
		{[]string{"issuer"}, "", false},
		{[]string{"issuer"}, "/a/", false},
		{[]string{"issuer"}, "/nobody", false},
		{[]string{""}, "/nil", false},
	} {
		want(t, c.allow, withRoles(c.roles...).MayCall(table, c.method), c.method)
	}
	for m := range caller.Methods() {
		want(t, false, caller.Caller{}.MayCall(caller.Methods(), m), m)
	}
}

// mayIssue asks all that is asked of a zone token.
func mayIssue(c caller.Caller, keyset, zone string, scopes []string, validFor time.Duration) error {
	if err := c.MayIssue(keyset, validFor); err != nil {
		return err
	}
	return c.MayIssueZone(zone, scopes)
}

func TestMayIssue(t *testing.T) {
	narrow := store.APIToken{
		Keysets: []string{"zone", "zone/eu"}, Zones: []string{"west", "lab-*"}, Scopes: []string{"cp"}, MaxValidFor: time.Hour,
	}
	for name, c := range map[string]struct {
		token        store.APIToken
		keyset, zone string
		scopes       []string
		validFor     time.Duration
		allow        bool
	}{
		"unbounded":        {store.APIToken{}, "zone", "any", []string{"cp", "egress"}, 1000 * time.Hour, true},
		"within":           {narrow, "zone", "west", []string{"cp"}, time.Hour, true},
		"second keyset":    {narrow, "zone/eu", "west", []string{"cp"}, time.Hour, true},
		"prefix":           {narrow, "zone", "lab-7", []string{"cp"}, time.Minute, true},
		"bare prefix":      {narrow, "zone", "lab-", []string{"cp"}, time.Minute, true},
		"other keyset":     {narrow, "user", "west", []string{"cp"}, time.Hour, false},
		"keyset prefix":    {narrow, "zone/us", "west", []string{"cp"}, time.Hour, false},
		"no keyset":        {narrow, "", "west", []string{"cp"}, time.Hour, false},
		"other zone":       {narrow, "zone", "east", []string{"cp"}, time.Hour, false},
		"longer zone":      {narrow, "zone", "west-2", []string{"cp"}, time.Hour, false},
		"shorter zone":     {narrow, "zone", "lab", []string{"cp"}, time.Hour, false},
		"pattern as zone":  {narrow, "zone", "*", []string{"cp"}, time.Hour, false},
		"no zone":          {narrow, "zone", "", []string{"cp"}, time.Hour, false},
		"other scope":      {narrow, "zone", "west", []string{"ingress"}, time.Hour, false},
		"one scope of two": {narrow, "zone", "west", []string{"cp", "ingress"}, time.Hour, false},
		"too long":         {narrow, "zone", "west", []string{"cp"}, time.Hour + 1, false},
	} {
		t.Run(name, func(t *testing.T) {
			want(t, c.allow, mayIssue(bounded(c.token), c.keyset, c.zone, c.scopes, c.validFor), name)
		})
	}
}

func TestMaySeeAndUnbounded(t *testing.T) {
	narrow := bounded(store.APIToken{Keysets: []string{"zone"}})
	want(t, true, narrow.MaySee("zone"), "own keyset")
	want(t, false, narrow.MaySee("zon"), "other keyset")
	want(t, true, bounded(store.APIToken{}).MaySee("anything"), "unbounded")

	want(t, true, bounded(store.APIToken{}).Unbounded(), "not narrowed")
	for _, token := range []store.APIToken{{Keysets: []string{"a"}}, {Zones: []string{"a"}}, {Scopes: []string{"cp"}}, {MaxValidFor: time.Hour}, {Dataplanes: []string{"a"}}} {
		want(t, false, bounded(token).Unbounded(), "narrowed")
	}
}

func TestMayGrant(t *testing.T) {
	own := store.APIToken{
		Keysets: []string{"a", "b"}, Zones: []string{"west", "lab-*"}, Scopes: []string{"cp", "egress"}, MaxValidFor: time.Hour,
	}
	with := func(change func(*store.APIToken)) store.APIToken {
		token := own
		change(&token)
		return token
	}
	for name, c := range map[string]struct {
		token store.APIToken
		allow bool
	}{
		"the same":            {own, true},
		"one keyset":          {with(func(t *store.APIToken) { t.Keysets = []string{"b"} }), true},
		"exact under prefix":  {with(func(t *store.APIToken) { t.Zones = []string{"lab-1"} }), true},
		"prefix under prefix": {with(func(t *store.APIToken) { t.Zones = []string{"lab-1*"} }), true},
		"shorter life":        {with(func(t *store.APIToken) { t.MaxValidFor = time.Minute }), true},
		"all keysets":         {with(func(t *store.APIToken) { t.Keysets = nil }), false},
		"another keyset":      {with(func(t *store.APIToken) { t.Keysets = []string{"a", "c"} }), false},
		"all zones":           {with(func(t *store.APIToken) { t.Zones = nil }), false},
		"another zone":        {with(func(t *store.APIToken) { t.Zones = []string{"east"} }), false},
		"wider prefix":        {with(func(t *store.APIToken) { t.Zones = []string{"lab*"} }), false},
		"prefix of an exact":  {with(func(t *store.APIToken) { t.Zones = []string{"west*"} }), false},
		"every zone":          {with(func(t *store.APIToken) { t.Zones = []string{"*"} }), false},
		"all scopes":          {with(func(t *store.APIToken) { t.Scopes = nil }), false},
		"another scope":       {with(func(t *store.APIToken) { t.Scopes = []string{"ingress"} }), false},
		"a dataplane":         {with(func(t *store.APIToken) { t.Dataplanes = []string{"d"} }), false},
		"any lifetime":        {with(func(t *store.APIToken) { t.MaxValidFor = 0 }), false},
		"longer life":         {with(func(t *store.APIToken) { t.MaxValidFor = 2 * time.Hour }), false},
	} {
		t.Run(name, func(t *testing.T) {
			want(t, c.allow, bounded(own).MayGrant(c.token), name)
			want(t, true, bounded(store.APIToken{}).MayGrant(c.token), "by one without bounds")
		})
	}
}

// What an API token is narrowed to decides which kinds of tokens it may ask for.
func TestNarrowedToOneKind(t *testing.T) {
	for name, c := range map[string]struct {
		token                store.APIToken
		zone, dataplane, any bool
	}{
		"not narrowed":       {store.APIToken{}, true, true, true},
		"to a zone":          {store.APIToken{Zones: []string{"name"}}, true, false, false},
		"to a scope":         {store.APIToken{Scopes: []string{"cp"}}, true, false, false},
		"to a dataplane":     {store.APIToken{Dataplanes: []string{"name"}}, false, true, false},
		"to some dataplanes": {store.APIToken{Dataplanes: []string{"x", "na*"}}, false, true, false},
		"to another":         {store.APIToken{Dataplanes: []string{"nam", "name-*"}}, false, false, false},
		"to both, which cannot be made": {
			store.APIToken{Zones: []string{"name"}, Dataplanes: []string{"name"}}, false, true, false,
		},
	} {
		who := bounded(c.token)
		want(t, c.zone, who.MayIssueZone("name", []string{"cp"}), name+", a zone token")
		want(t, c.dataplane, who.MayIssueDataplane("name"), name+", a dataplane token")
		want(t, c.any, who.MayIssueAny(), name+", a user token")
		want(t, len(c.token.Dataplanes) == 0 && c.dataplane, who.MayIssueDataplane(""), name+", a dataplane token without a name")
		want(t, c.any, who.MayManage("k"), name+", managing keys")
	}
}

func TestMayGrantDataplanes(t *testing.T) {
	dataplanes := func(list ...string) store.APIToken { return store.APIToken{Dataplanes: list} }
	for name, c := range map[string]struct {
		own, token store.APIToken
		allow      bool
	}{
		"by anybody":      {store.APIToken{}, dataplanes("d"), true},
		"the same":        {dataplanes("d", "e-*"), dataplanes("e-1*", "d"), true},
		"wider":           {dataplanes("e-*"), dataplanes("e*"), false},
		"all":             {dataplanes("d"), store.APIToken{}, false},
		"beside zones":    {store.APIToken{Zones: []string{"z"}}, store.APIToken{Zones: []string{"z"}, Dataplanes: []string{"d"}}, false},
		"instead of them": {store.APIToken{Zones: []string{"z"}}, dataplanes("d"), false},
		"beside scopes":   {store.APIToken{Scopes: []string{"cp"}}, store.APIToken{Scopes: []string{"cp"}, Dataplanes: []string{"d"}}, false},
	} {
		want(t, c.allow, bounded(c.own).MayGrant(c.token), name)
	}
}

// Whatever a new token may issue, its maker may issue too.
func FuzzMayGrant(f *testing.F) {
	f.Add("west", "west*", "west-1", int64(5), int64(3))
	f.Add("lab-*", "lab*", "lab1", int64(0), int64(0))
	f.Add("", "a", "a", int64(1), int64(0))
	f.Fuzz(func(t *testing.T, outer, inner, zone string, most, asked int64) {
		token := func(zone string, most int64) store.APIToken {
			made := store.APIToken{MaxValidFor: time.Duration(max(most, 0))}
			if zone != "" {
				made.Zones = []string{zone}
			}
			return made
		}
		maker, made := bounded(token(outer, most)), token(inner, asked)
		if maker.MayGrant(made) != nil {
			return
		}
		for _, validFor := range []time.Duration{1, time.Duration(max(asked, 1)), 1 << 62} {
			if mayIssue(bounded(made), "k", zone, nil, validFor) == nil && mayIssue(maker, "k", zone, nil, validFor) != nil {
				t.Errorf("a token narrowed to %q made one for %q, which issues for %q", outer, inner, zone)
			}
		}
	})
}
