package token

import (
	"fmt"
	"slices"
	"strings"
)

// Profile says which claims the tokens of a keyset carry. No key serves two.
type Profile string

// The profiles.
const (
	ProfileZone      Profile = "zone"
	ProfileDataplane Profile = "dataplane"
	ProfileUser      Profile = "user"
)

// Profiles returns every profile.
func Profiles() []Profile { return []Profile{ProfileZone, ProfileDataplane, ProfileUser} }

// claimNames returns the profile's own claims, in the order in which they are
// encoded. The registered ones follow them.
func (p Profile) claimNames() []string {
	switch p {
	case ProfileZone:
		return []string{"Zone", "Scope"}
	case ProfileDataplane:
		return []string{"Name", "Mesh", "Tags", "Type", "Workload"}
	case ProfileUser:
		return []string{"Name", "Groups"}
	default:
		return nil
	}
}

// Claims is the set of claim types, one per profile.
type Claims interface {
	ZoneClaims | DataplaneClaims | UserClaims

	// Profile returns the profile that the claims belong to.
	Profile() Profile
	// Subject names in a few words whom the token is for, as ledgers and logs
	// do. It is not a claim.
	Subject() string
	// AppendJSON appends the claims as a JSON object (RFC 7519 section 4).
	AppendJSON(dst []byte) []byte
}

// claimReader is what the pointer to each claim type does to be read.
type claimReader interface {
	// read takes the value of one claim, of the profile or registered.
	read(name string, value []byte) error
	// check says whether the profile's own claims make sense.
	check() error
	registered() *Registered
}

var (
	_ claimReader = (*ZoneClaims)(nil)
	_ claimReader = (*DataplaneClaims)(nil)
	_ claimReader = (*UserClaims)(nil)
)

// vocabulary sorts claim names for one profile.
type vocabulary struct {
	known   []string // read, in this spelling only
	foreign []string // claims of other profiles: refused
}

func newVocabulary(p Profile) vocabulary {
	v := vocabulary{known: append(p.claimNames(), registeredNames()...)}
	for _, other := range Profiles() {
		for _, name := range other.claimNames() {
			if !slices.Contains(v.known, name) {
				v.foreign = append(v.foreign, name)
			}
		}
	}
	return v
}

// sort says whether the claim is to be read. Claims that nobody here knows are
// ignored, as RFC 7519 section 4 wants it. A claim that differs from a known
// one only by case is refused: a verifier that folds case, as Go's own JSON
// decoder does, would see another token than we do.
func (v vocabulary) sort(name string) (known bool, err error) {
	if slices.Contains(v.known, name) {
		return true, nil
	}
	for _, k := range v.known {
		if strings.EqualFold(k, name) {
			return false, fmt.Errorf("%w: %.20q must be written %q", ErrClaims, name, k)
		}
	}
	for _, f := range v.foreign {
		if strings.EqualFold(f, name) {
			return false, fmt.Errorf("%w: %q belongs to another profile", ErrClaims, f)
		}
	}
	return false, nil
}

// readClaims reads a payload into the claims behind r.
func readClaims(payload []byte, v vocabulary, r claimReader) error {
	err := members(payload, func(name string, value []byte) error {
		known, err := v.sort(name)
		if err != nil || !known {
			return err
		}
		if err := r.read(name, value); err != nil {
			return fmt.Errorf("%w: %s: %w", ErrClaims, name, err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := r.registered().check(); err != nil {
		return fmt.Errorf("%w: %w", ErrClaims, err)
	}
	if err := r.check(); err != nil {
		return fmt.Errorf("%w: %w", ErrClaims, err)
	}
	return nil
}
