package kuma

import (
	"fmt"

	"github.com/zonemint/zonemint/token"
)

// ConfigOptions say what a control plane does besides trusting the keys. Its own
// defaults are to issue and to use secrets.
type ConfigOptions struct {
	EnableIssuer bool // it goes on issuing tokens with its own keys
	UseSecrets   bool // it goes on trusting keys in its secrets
	// Imported adds the keys that were taken over from a control plane. They are
	// for control planes that do not use secrets; in others a key in the
	// configuration takes the place of the secret with the same number.
	Imported bool
}

// The part of a control plane's configuration that is about tokens, as Kuma's
// kuma-cp.defaults.yaml has it.
type (
	config struct {
		DPServer  *dpServer  `json:"dpServer,omitempty" yaml:"dpServer,omitempty"`
		APIServer *apiServer `json:"apiServer,omitempty" yaml:"apiServer,omitempty"`
	}
	dpServer struct {
		Authn dpAuthn `json:"authn" yaml:"authn"`
	}
	dpAuthn struct {
		ZoneProxy *zoneProxy `json:"zoneProxy,omitempty" yaml:"zoneProxy,omitempty"`
		DPProxy   *dpProxy   `json:"dpProxy,omitempty" yaml:"dpProxy,omitempty"`
	}
	zoneProxy struct {
		ZoneToken *tokens `json:"zoneToken" yaml:"zoneToken"`
	}
	dpProxy struct {
		DPToken *tokens `json:"dpToken" yaml:"dpToken"`
	}
	apiServer struct {
		Authn apiAuthn `json:"authn" yaml:"authn"`
	}
	apiAuthn struct {
		Tokens *tokens `json:"tokens" yaml:"tokens"`
	}
	tokens struct {
		EnableIssuer bool      `json:"enableIssuer" yaml:"enableIssuer"`
		Validator    validator `json:"validator" yaml:"validator"`
	}
	validator struct {
		UseSecrets bool        `json:"useSecrets" yaml:"useSecrets"`
		PublicKeys []publicKey `json:"publicKeys" yaml:"publicKeys"`
	}
	publicKey struct {
		KID  string `json:"kid" yaml:"kid"`
		Mesh string `json:"mesh,omitempty" yaml:"mesh,omitempty"`
		Key  string `json:"key" yaml:"key"`
	}
)

// Config returns the keys as a part of a control plane's configuration. It is all
// keys or, with a *RefusedError, none.
func (t Trust) Config(o ConfigOptions) (Document, error) {
	doc, c, err := t.config(o)
	if err != nil {
		return Document{}, err
	}
	doc.Comments = append(doc.Comments,
		"Merge it into the configuration file of every control plane that verifies these",
		"tokens, and restart them one by one: they read the file at their start only.")
	doc.items = []any{c}
	return doc, nil
}

// HelmValues returns the same as values for the Helm chart of Kuma, or with
// kongMesh for that of Kong Mesh, which has Kuma's as a part.
func (t Trust) HelmValues(o ConfigOptions, kongMesh bool) (Document, error) {
	doc, c, err := t.config(o)
	if err != nil {
		return Document{}, err
	}
	text, err := encodeYAML(c)
	if err != nil {
		return Document{}, err
	}
	value := "controlPlane.config"
	var values any = helmValues{helmControlPlane{string(text)}}
	if kongMesh {
		value, values = "kuma."+value, struct {
			Kuma any `json:"kuma" yaml:"kuma"`
		}{values}
	}
	doc.Comments = append(doc.Comments,
		"Helm replaces "+value+" as a whole: add what you have there already.")
	doc.items = []any{values}
	return doc, nil
}

type (
	helmValues struct {
		ControlPlane helmControlPlane `json:"controlPlane" yaml:"controlPlane"`
	}
	helmControlPlane struct {
		Config string `json:"config" yaml:"config"` // YAML
	}
)

func (t Trust) config(o ConfigOptions) (Document, *config, error) {
	s := t.choose(t.Keysets, func(s *selection, ks Keyset, k Key) bool {
		switch {
		case o.Imported:
			return true
		case o.UseSecrets:
			s.note("key %q of keyset %q is left out: it is a control plane's own, which has it in its secrets", k.ID, ks.Name)
		default:
			s.note("key %q of keyset %q is left out, and a control plane that does not use secrets refuses its tokens: --imported adds it", k.ID, ks.Name)
		}
		return false
	})
	if err := s.err(); err != nil {
		return Document{}, nil, err
	}
	c := &config{}
	for _, k := range s.keys {
		into, err := c.tokens(k.keyset.Profile, o)
		if err != nil {
			return Document{}, nil, err
		}
		key := publicKey{KID: k.ID, Key: k.PEM}
		if k.keyset.Profile == token.ProfileDataplane {
			key.Mesh = k.keyset.Mesh
		}
		into.Validator.PublicKeys = append(into.Validator.PublicKeys, key)
	}
	return Document{Comments: t.header(s.keys, nil), Notes: s.notes, Keys: len(s.keys)}, c, nil
}

// tokens returns the place for keys of a profile, which it makes if need be.
func (c *config) tokens(p token.Profile, o ConfigOptions) (*tokens, error) {
	fresh := &tokens{EnableIssuer: o.EnableIssuer, Validator: validator{UseSecrets: o.UseSecrets}}
	switch p {
	case token.ProfileZone:
		if at := &c.dp().ZoneProxy; *at == nil {
			*at = &zoneProxy{fresh}
		}
		return c.dp().ZoneProxy.ZoneToken, nil
	case token.ProfileDataplane:
		if at := &c.dp().DPProxy; *at == nil {
			*at = &dpProxy{fresh}
		}
		return c.dp().DPProxy.DPToken, nil
	case token.ProfileUser:
		if c.APIServer == nil {
			c.APIServer = &apiServer{apiAuthn{fresh}}
		}
		return c.APIServer.Authn.Tokens, nil
	default:
		return nil, fmt.Errorf("control planes have no place for keys of %s tokens", p)
	}
}

func (c *config) dp() *dpAuthn {
	if c.DPServer == nil {
		c.DPServer = &dpServer{}
	}
	return &c.DPServer.Authn
}
