package profile

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/zonemint/zonemint/service/caller"
	"github.com/zonemint/zonemint/store"
	"github.com/zonemint/zonemint/token"
)

// Dataplane asks for a dataplane token.
type Dataplane struct {
	Mesh, Name, Type, Workload string
	Tags                       map[string][]string
}

// Profile implements [Wish].
func (Dataplane) Profile() store.Profile { return store.ProfileDataplane }

// Keyset implements [Wish]: of those that are for the mesh it is the one that is
// named after it, as a rule, and otherwise the first by name.
func (d Dataplane) Keyset(ofMesh func(mesh string) []string) string {
	usual, names := "dataplane/"+d.Mesh, ofMesh(d.Mesh)
	if len(names) == 0 || slices.Contains(names, usual) {
		return usual
	}
	return names[0]
}

// The forms of names in Kuma: of meshes and dataplanes, of tags and of what they
// have.
var (
	resourceName = regexp.MustCompile(`^[a-z0-9]([-a-z0-9._]*[a-z0-9])?$`)
	tagName      = regexp.MustCompile(`^[a-zA-Z0-9./:_-]+$`)
	tagValue     = regexp.MustCompile(`^[a-zA-Z0-9.:_-]+$`)
)

const (
	maxName = 253
	maxTags = 64 // and as many values of each

	nameForm = "must be 1 to 253 of a-z, 0-9, '-', '.' and '_', beginning and ending with a letter or digit"
)

func validName(s string) bool { return len(s) <= maxName && resourceName.MatchString(s) }

// Faults implements [Wish]. Kuma issues tokens that are bound to nothing, with
// which a proxy can be any dataplane of the mesh.
func (d Dataplane) Faults() []Fault {
	var faults []Fault
	add := func(field, reason string) { faults = append(faults, Fault{field, reason}) }
	switch {
	case d.Mesh == "":
		add("mesh", empty)
	case !validName(d.Mesh):
		add("mesh", nameForm)
	}
	switch {
	case d.Name == "" && len(d.Tags) == 0 && d.Workload == "":
		add("name", "cannot be empty, unless there are tags or a workload: a token that is bound to nothing is good for every dataplane of the mesh")
	case d.Name != "" && !validName(d.Name):
		add("name", nameForm)
	}
	if d.Workload != "" && !token.ValidZoneName(d.Workload) { // a label, too
		add("workload", "must be 1 to 63 of a-z, 0-9 and '-', beginning and ending with a letter or digit")
	}
	switch d.Type {
	case "", "dataplane":
	case "ingress", "egress":
		add("type", fmt.Sprintf("must be empty or \"dataplane\"; a zone proxy needs a zone token with scope %q", d.Type))
	default:
		add("type", "must be empty or \"dataplane\"")
	}
	return append(faults, d.tagFaults()...)
}

func (d Dataplane) tagFaults() []Fault {
	if len(d.Tags) > maxTags {
		return []Fault{{"tags", fmt.Sprintf("has more than %d entries", maxTags)}}
	}
	var faults []Fault
	for _, name := range slices.Sorted(maps.Keys(d.Tags)) {
		if reason := tagFault(name, d.Tags[name]); reason != "" {
			faults = append(faults, Fault{"tags", reason})
		}
	}
	return append(faults, lengthFaults("tags", token.DataplaneClaims{Tags: d.Tags})...)
}

func tagFault(name string, values []string) string {
	switch {
	case len(name) > maxName || !tagName.MatchString(name):
		return "\"" + clip(name) + "\" is not the name of a tag"
	case len(values) == 0:
		return clip(name) + " has no values"
	case len(values) > maxTags:
		return fmt.Sprintf("%s has more than %d values", clip(name), maxTags)
	}
	for _, v := range values {
		if len(v) > maxName || !tagValue.MatchString(v) {
			return "\"" + clip(v) + "\" is not a value that " + clip(name) + " can have"
		}
	}
	return ""
}

// Fits implements [Wish]: every key is for one mesh.
func (d Dataplane) Fits(ks store.Keyset) []Fault {
	switch mesh := ks.Mesh(); {
	case mesh == "":
		return []Fault{{"keyset", fmt.Sprintf("%q is for no mesh; make one with --mesh", ks.Name)}}
	case mesh != d.Mesh:
		return []Fault{{"mesh", fmt.Sprintf("is %q, and keyset %q is for %q", clip(d.Mesh), ks.Name, mesh)}}
	}
	return nil
}

// Within implements [Wish].
func (d Dataplane) Within(who caller.Caller) error { return who.MayIssueDataplane(d.Name) }

// Subject implements [Wish].
func (d Dataplane) Subject() string { return d.claims(token.Registered{}).Subject() }

// Scopes implements [Wish].
func (Dataplane) Scopes() []string { return nil }

func (d Dataplane) claims(r token.Registered) token.DataplaneClaims {
	// As Kuma does: an object even if it is empty, with the values in order.
	tags := make(map[string][]string, len(d.Tags))
	for name, values := range d.Tags {
		values = slices.Clone(values)
		slices.Sort(values)
		tags[name] = slices.Compact(values)
	}
	return token.DataplaneClaims{
		Name: d.Name, Mesh: d.Mesh, Tags: tags, Type: d.Type, Workload: d.Workload, Registered: r,
	}
}

// AppendSigningInput implements [Wish].
func (d Dataplane) AppendSigningInput(dst []byte, header string, r token.Registered) []byte {
	return token.AppendSigningInput(dst, header, d.claims(r))
}

func toValid(s string) string { return strings.ToValidUTF8(s, "") }
