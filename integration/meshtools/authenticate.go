package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/golang-jwt/jwt/v5"
)

// zoneClaims are those of a zone token.
type zoneClaims struct {
	Zone  string
	Scope []string
	jwt.RegisteredClaims
}

// authenticate looks at the token of a zone's control plane as the global one does,
// which has the keys from its configuration only. It returns the token's ID.
func (s started) authenticate(text, zone string) (string, error) {
	if s.Auth != "cpToken" {
		return "", errors.New("it was not told to look at tokens")
	}
	c, err := readConfig(s.Config)
	if err != nil {
		return "", err
	}
	if strings.TrimSpace(text) != text {
		return "", errors.New("the token has white space around it")
	}
	var claims zoneClaims
	parser := jwt.NewParser(jwt.WithValidMethods([]string{"RS256"}), jwt.WithExpirationRequired(), jwt.WithStrictDecoding())
	if _, err := parser.ParseWithClaims(text, &claims, c.zoneKey); err != nil {
		return "", err
	}
	if err := onlyZoneClaims(text); err != nil {
		return "", err
	}
	switch {
	case claims.Zone != zone:
		return "", fmt.Errorf("the token is for zone %q", claims.Zone)
	case !slices.Equal(claims.Scope, []string{"cp"}):
		return "", fmt.Errorf("the token has the scopes %q", claims.Scope)
	case claims.ID == "":
		return "", errors.New("the token has no ID, so it cannot be revoked")
	}
	return claims.ID, nil
}

// zoneKey returns the key of zone tokens with which a token was signed.
func (c *config) zoneKey(t *jwt.Token) (any, error) {
	kid, ok := t.Header["kid"].(string)
	if !ok {
		return nil, errors.New("the token names no key")
	}
	zone := c.DPServer.Authn.ZoneProxy.ZoneToken
	if zone != nil {
		for _, k := range zone.Validator.PublicKeys {
			if k.KID == kid {
				return k.parsed, nil
			}
		}
	}
	return nil, fmt.Errorf("there is no signing key with KID %s", kid)
}

// onlyZoneClaims refuses a token that could pass for one of another kind. Control
// planes match the names of claims whatever their case.
func onlyZoneClaims(text string) error {
	payload, err := jwt.NewParser().DecodeSegment(strings.Split(text, ".")[1])
	if err != nil {
		return err
	}
	var claims map[string]any
	if err := json.Unmarshal(payload, &claims); err != nil {
		return err
	}
	for name := range claims {
		if !slices.Contains([]string{"Zone", "Scope", "exp", "nbf", "iat", "jti"}, name) {
			return fmt.Errorf("the token has a claim %q", name)
		}
	}
	return nil
}
