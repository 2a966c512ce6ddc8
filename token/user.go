package token

import "errors"

// UserClaims are the claims of a user token: the bearer is the user Name of the
// control plane's API, and a member of Groups.
type UserClaims struct {
	Name   string
	Groups []string
	Registered
}

// Profile returns [ProfileUser].
func (UserClaims) Profile() Profile { return ProfileUser }

// Subject returns the user's name.
func (c UserClaims) Subject() string { return c.Name }

// AppendJSON appends the claims as a JSON object, in the order of Kuma's own
// tokens. It does not check them.
func (c UserClaims) AppendJSON(dst []byte) []byte {
	dst = appendString(append(dst, `{"Name":`...), c.Name)
	dst = appendStrings(append(dst, `,"Groups":`...), c.Groups)
	return append(c.appendMembers(dst), '}')
}

// MarshalJSON returns what AppendJSON appends.
func (c UserClaims) MarshalJSON() ([]byte, error) { return c.AppendJSON(nil), nil }

func (c *UserClaims) read(name string, value []byte) (err error) {
	switch name {
	case "Name":
		c.Name, err = readString(value)
	case "Groups":
		c.Groups, err = readStrings(value)
	default:
		err = c.Registered.read(name, value)
	}
	return err
}

func (c *UserClaims) check() error {
	if c.Name == "" {
		return errors.New("Name is missing or empty")
	}
	return nil
}
