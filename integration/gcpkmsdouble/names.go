package gcpkmsdouble

import (
	"regexp"
	"strings"
)

// The names of resources (AIP-122), of which the API's reference has the form.
const (
	locationPattern = `projects/(?P<project>[a-z0-9][a-z0-9.:-]*)/locations/(?P<location>[a-z0-9-]+)`
	ringPattern     = locationPattern + `/keyRings/(?P<ring>[a-zA-Z0-9_-]{1,63})`
	keyPattern      = ringPattern + `/cryptoKeys/(?P<key>[a-zA-Z0-9_-]{1,63})`
	versionPattern  = keyPattern + `/cryptoKeyVersions/(?P<version>[1-9][0-9]*)`
)

// parse reads a name of a kind into its parts.
func parse(pattern, name string) (map[string]string, bool) {
	re := regexp.MustCompile("^" + pattern + "$")
	m := re.FindStringSubmatch(name)
	if m == nil {
		return nil, false
	}
	parts := map[string]string{}
	for i, part := range re.SubexpNames() {
		parts[part] = m[i]
	}
	return parts, true
}

// isID is the form that the API's reference gives for IDs of keys and of key rings.
func isID(id string) bool { return regexp.MustCompile(`^[a-zA-Z0-9_-]{1,63}$`).MatchString(id) }

// checkLabels follows "Labeling keys", "Requirements for labels".
func checkLabels(labels map[string]string) error {
	if len(labels) > 64 {
		return invalid("a resource can have up to 64 labels, got %d", len(labels))
	}
	for k, v := range labels {
		if !regexp.MustCompile(`^[\p{Ll}\p{Lo}][\p{Ll}\p{Lo}\p{N}_-]{0,62}$`).MatchString(k) {
			return invalid("label key %q does not match the format", k)
		}
		if !regexp.MustCompile(`^[\p{Ll}\p{Lo}\p{N}_-]{0,63}$`).MatchString(v) {
			return invalid("label value %q does not match the format", v)
		}
	}
	return nil
}

// parent cuts the last kind and ID off a name.
func parent(name string) string {
	for range 2 {
		name = name[:strings.LastIndex(name, "/")]
	}
	return name
}
