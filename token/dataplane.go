package token

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// DataplaneClaims are the claims of a dataplane token: the bearer may be any
// dataplane of Mesh that fits all of Name, Tags and Workload. What is empty
// binds nothing.
type DataplaneClaims struct {
	Name     string
	Mesh     string
	Tags     map[string][]string // for each tag, the values it may have
	Type     string              // "" or "dataplane"
	Workload string
	Registered
}

// Profile returns [ProfileDataplane].
func (DataplaneClaims) Profile() Profile { return ProfileDataplane }

// Subject returns the dataplane's name. Of a token that is not for one dataplane
// it returns what else binds it: "workload=…", or the tags as "tags:name=value,…".
func (c DataplaneClaims) Subject() string {
	switch {
	case c.Name != "":
		return c.Name
	case c.Workload != "":
		return "workload=" + c.Workload
	}
	var tags []string
	for _, name := range slices.Sorted(maps.Keys(c.Tags)) {
		tags = append(tags, name+"="+strings.Join(c.Tags[name], "|"))
	}
	return "tags:" + strings.Join(tags, ",")
}

// AppendJSON appends the claims as a JSON object, in the order of Kuma's own
// tokens and with the tags sorted. It does not check them.
func (c DataplaneClaims) AppendJSON(dst []byte) []byte {
	dst = appendString(append(dst, `{"Name":`...), c.Name)
	dst = appendString(append(dst, `,"Mesh":`...), c.Mesh)
	dst = appendTags(append(dst, `,"Tags":`...), c.Tags)
	dst = appendString(append(dst, `,"Type":`...), c.Type)
	dst = appendString(append(dst, `,"Workload":`...), c.Workload)
	return append(c.appendMembers(dst), '}')
}

// MarshalJSON returns what AppendJSON appends.
func (c DataplaneClaims) MarshalJSON() ([]byte, error) { return c.AppendJSON(nil), nil }

func (c *DataplaneClaims) read(name string, value []byte) (err error) {
	switch name {
	case "Name":
		c.Name, err = readString(value)
	case "Mesh":
		c.Mesh, err = readString(value)
	case "Tags":
		c.Tags, err = readTags(value)
	case "Type":
		c.Type, err = readString(value)
	case "Workload":
		c.Workload, err = readString(value)
	default:
		err = c.Registered.read(name, value)
	}
	return err
}

func (c *DataplaneClaims) check() error {
	switch {
	case c.Mesh == "":
		return errors.New("Mesh is missing or empty")
	case c.Name == "" && len(c.Tags) == 0 && c.Workload == "":
		return errors.New("Name, Tags and Workload are all missing or empty: no subject")
	case c.Type != "" && c.Type != "dataplane":
		return fmt.Errorf("unknown Type %.20q", c.Type)
	default:
		return nil
	}
}

// RequireMesh wants the token to be for that mesh.
func RequireMesh(name string) Requirement[DataplaneClaims] {
	return func(c DataplaneClaims) error {
		if name == "" || c.Mesh != name {
			return fmt.Errorf("it is for mesh %.64q, not %.64q", c.Mesh, name)
		}
		return nil
	}
}

func appendTags(dst []byte, tags map[string][]string) []byte {
	if tags == nil {
		return append(dst, "null"...)
	}
	dst = append(dst, '{')
	for i, name := range slices.Sorted(maps.Keys(tags)) {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendString(dst, name)
		dst = appendStrings(append(dst, ':'), tags[name])
	}
	return append(dst, '}')
}

func readTags(value []byte) (map[string][]string, error) {
	if string(value) == "null" {
		return nil, nil
	}
	tags := map[string][]string{}
	err := members(value, func(name string, value []byte) error {
		values, err := readStrings(value)
		if err != nil {
			return err
		}
		if len(values) == 0 {
			return errors.New("a tag without values")
		}
		tags[name] = values
		return nil
	})
	return tags, err
}
