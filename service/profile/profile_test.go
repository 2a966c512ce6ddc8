package profile_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/zonemint/zonemint/service/profile"
	"github.com/zonemint/zonemint/store"
	"github.com/zonemint/zonemint/token"
)

func fields(faults []profile.Fault) string {
	var names []string
	for _, f := range faults {
		names = append(names, f.Field)
	}
	return strings.Join(names, " ")
}

// distinct returns n strings of a length.
func distinct(n, length int) []string {
	list := make([]string, n)
	for i := range list {
		list[i] = fmt.Sprintf("%0*d", length, i)
	}
	return list
}

func TestFaults(t *testing.T) {
	long := strings.Repeat("a", 254)
	dp := func(change func(*profile.Dataplane)) profile.Wish {
		d := profile.Dataplane{Mesh: "default", Name: "d1"}
		change(&d)
		return d
	}
	tags := func(name string, values ...string) profile.Wish {
		return dp(func(d *profile.Dataplane) { d.Tags = map[string][]string{name: values} })
	}
	for name, c := range map[string]struct {
		wish profile.Wish
		want string // the fields
	}{
		"zone":             {profile.Zone{Zone: "east"}, ""},
		"zone, all scopes": {profile.Zone{Zone: "e-1", Scope: []string{"cp", "ingress", "egress"}}, ""},
		"zone, no name":    {profile.Zone{Scope: []string{"cp"}}, "zone"},
		"zone, bad name":   {profile.Zone{Zone: "Zone_1 ;/"}, "zone"},
		"zone, scopes":     {profile.Zone{Zone: "east", Scope: []string{"cp", "cp", "x"}}, "scope scope"},
		"zone, no scopes":  {profile.Zone{Zone: "east", Scope: []string{}}, "scope"},
		"zone, too many":   {profile.Zone{Zone: "east", Scope: slices.Repeat([]string{"x"}, 100)}, "scope"},

		"dataplane":          {dp(func(*profile.Dataplane) {}), ""},
		"pod":                {dp(func(d *profile.Dataplane) { d.Name = "web-5f_x.ns-1" }), ""},
		"dataplane, type":    {dp(func(d *profile.Dataplane) { d.Type = "dataplane" }), ""},
		"ingress":            {dp(func(d *profile.Dataplane) { d.Type = "ingress" }), "type"},
		"unbound":            {dp(func(d *profile.Dataplane) { d.Name = "" }), "name"},
		"by workload":        {dp(func(d *profile.Dataplane) { d.Name, d.Workload = "", "w" }), ""},
		"workload, bad":      {dp(func(d *profile.Dataplane) { d.Workload = "a b" }), "workload"},
		"by tags":            {tags("kuma.io/service", "a_b:1", "B.c"), ""},
		"tag, no name":       {tags("", "a"), "tags"},
		"tag, bad name":      {tags("a=b", "a"), "tags"},
		"tag, no value":      {tags("a"), "tags"},
		"tag, empty value":   {tags("a", ""), "tags"},
		"tag, bad value":     {tags("a", "b,c"), "tags"},
		"tag, any value":     {tags("a", "*"), "tags"},
		"tag, long value":    {tags("a", long), "tags"},
		"tag, many values":   {tags("a", slices.Repeat([]string{"v"}, 65)...), "tags"},
		"tags, all long":     {tags("a", distinct(40, 250)...), "tags"},
		"no mesh":            {dp(func(d *profile.Dataplane) { d.Mesh = "" }), "mesh"},
		"mesh, bad":          {dp(func(d *profile.Dataplane) { d.Mesh = "a/b" }), "mesh"},
		"mesh, too long":     {dp(func(d *profile.Dataplane) { d.Mesh = long }), "mesh"},
		"name of the system": {dp(func(d *profile.Dataplane) { d.Name = "mesh-system:admin" }), "name"},
		"name, upper case":   {dp(func(d *profile.Dataplane) { d.Name = "D1" }), "name"},

		"user":               {profile.User{Name: "Jürgen Müller <jm@example.com>", Groups: []string{"a:b", "ö"}}, ""},
		"user, no name":      {profile.User{Groups: []string{"a"}}, "name"},
		"user, space":        {profile.User{Name: "a "}, "name"},
		"user, control":      {profile.User{Name: "a\x00b"}, "name"},
		"user, bidi":         {profile.User{Name: "a\u202eb"}, "name"},
		"user, not UTF-8":    {profile.User{Name: "a\xffb"}, "name"},
		"user, replaced":     {profile.User{Name: "a\ufffdb"}, "name"},
		"user, long":         {profile.User{Name: long}, "name"},
		"user, group twice":  {profile.User{Name: "a", Groups: []string{"g", "h", "g"}}, "groups[2]"},
		"user, empty group":  {profile.User{Name: "a", Groups: []string{""}}, "groups[0]"},
		"user, many groups":  {profile.User{Name: "a", Groups: slices.Repeat([]string{"g"}, 65)}, "groups"},
		"user, long groups":  {profile.User{Name: "a", Groups: distinct(40, 250)}, "groups"},
		"user, escapes":      {profile.User{Name: "a", Groups: []string{strings.Repeat("<", 253)}}, ""},
		"user, many escapes": {profile.User{Name: "a", Groups: []string{strings.Repeat("<", 253), strings.Repeat("<", 252), strings.Repeat("&", 253), strings.Repeat("&", 252), strings.Repeat(">", 253), strings.Repeat(">", 252)}}, "groups"},
		"user of the system": {profile.User{Name: "mesh-system:admin"}, ""}, // the keyset decides
	} {
		if got := fields(c.wish.Faults()); got != c.want {
			t.Errorf("%s: faults in %q, want %q", name, got, c.want)
		}
		if c.want == "" {
			wantReadable(t, name, c.wish)
		}
	}
}

// wantReadable wants what has no faults to be a token that verifiers take.
func wantReadable(t *testing.T, name string, w profile.Wish) {
	t.Helper()
	text := string(w.AppendSigningInput(nil, "e30", token.Registered{ID: "x"}))
	payload, err := base64.RawURLEncoding.DecodeString(strings.TrimPrefix(text, "e30."))
	if err != nil || !json.Valid(payload) {
		t.Errorf("%s: %v %s", name, err, payload)
	}
	if w.Subject() == "" || len(text) > token.MaxTokenSize*3/4 {
		t.Errorf("%s is %d bytes long, with the subject %q", name, len(text), w.Subject())
	}
}

func TestFits(t *testing.T) {
	keyset := func(p store.Profile, name string, policy store.Policy) store.Keyset {
		return store.Keyset{Name: name, Profile: p, Policy: policy}
	}
	users := keyset(store.ProfileUser, "user", store.Policy{})
	trusting := keyset(store.ProfileUser, "user", store.Policy{AllowMeshSystem: true})
	for name, c := range map[string]struct {
		wish profile.Wish
		ks   store.Keyset
		want string
	}{
		"mesh by name":         {profile.Dataplane{Mesh: "m"}, keyset(store.ProfileDataplane, "dataplane/m", store.Policy{}), ""},
		"mesh by policy":       {profile.Dataplane{Mesh: "m.eu"}, keyset(store.ProfileDataplane, "dataplane/m", store.Policy{Mesh: "m.eu"}), ""},
		"policy before name":   {profile.Dataplane{Mesh: "m"}, keyset(store.ProfileDataplane, "dataplane/m", store.Policy{Mesh: "m.eu"}), "mesh"},
		"another mesh":         {profile.Dataplane{Mesh: "n"}, keyset(store.ProfileDataplane, "dataplane/m", store.Policy{}), "mesh"},
		"no mesh":              {profile.Dataplane{Mesh: "n"}, keyset(store.ProfileDataplane, "dataplane", store.Policy{}), "keyset"},
		"neither has one":      {profile.Dataplane{}, keyset(store.ProfileDataplane, "dataplane", store.Policy{}), "keyset"},
		"user":                 {profile.User{Name: "jo", Groups: []string{"mesh-systems", "x:mesh-system:"}}, users, ""},
		"system user":          {profile.User{Name: "mesh-system:admin"}, users, "name"},
		"system group":         {profile.User{Name: "jo", Groups: []string{"a", "mesh-system:"}}, users, "groups[1]"},
		"system, another case": {profile.User{Name: "MESH-system:x", Groups: []string{"Mesh-System:y"}}, users, "name groups[0]"},
		"system, allowed":      {profile.User{Name: "mesh-system:admin", Groups: []string{"mesh-system:admin"}}, trusting, ""},
	} {
		if got := fields(c.wish.Fits(c.ks)); got != c.want {
			t.Errorf("%s: faults in %q, want %q", name, got, c.want)
		}
	}
}

// The keyset of a mesh is the one named after it, or the first that is for it.
func TestKeysetOfMesh(t *testing.T) {
	all := []store.Keyset{
		{Name: "dataplane/b", Profile: store.ProfileDataplane}, {Name: "dp-1", Profile: store.ProfileDataplane, Policy: store.Policy{Mesh: "a.eu"}},
		{Name: "dp-2", Profile: store.ProfileDataplane, Policy: store.Policy{Mesh: "a.eu"}}, {Name: "user/c", Profile: store.ProfileUser},
		{Name: "dp-3", Profile: store.ProfileDataplane, Policy: store.Policy{Mesh: "b"}}, {Name: "dp-4", Profile: store.ProfileDataplane},
		{Name: "dataplane/d", Profile: store.ProfileDataplane, Policy: store.Policy{Mesh: "d.eu"}}, {Name: "dataplane/e", Profile: store.ProfileUser},
		{Name: "dp-6", Profile: store.ProfileDataplane, Policy: store.Policy{Mesh: "d"}}, {Name: "dp-5", Profile: store.ProfileDataplane, Policy: store.Policy{Mesh: "d"}},
		{Name: "dp-7", Profile: store.ProfileDataplane, Policy: store.Policy{Mesh: "e"}},
	}
	ofMesh := func(mesh string) (names []string) {
		for _, ks := range all {
			if mesh != "" && ks.Mesh() == mesh {
				names = append(names, ks.Name)
			}
		}
		slices.Sort(names)
		return names
	}
	for mesh, want := range map[string]string{"b": "dataplane/b", "a.eu": "dp-1", "c": "dataplane/c", "": "dataplane/", "d": "dp-5", "d.eu": "dataplane/d", "e": "dp-7"} {
		if got := (profile.Dataplane{Mesh: mesh}).Keyset(ofMesh); got != want {
			t.Errorf("%q: %q, want %q", mesh, got, want)
		}
	}
}
