package main

import (
	"bytes"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// config is the part of a control plane's configuration that is about tokens.
type config struct {
	DPServer struct {
		Authn struct {
			ZoneProxy struct {
				ZoneToken *tokens `yaml:"zoneToken"`
			} `yaml:"zoneProxy"`
			DPProxy struct {
				DPToken *tokens `yaml:"dpToken"`
			} `yaml:"dpProxy"`
		} `yaml:"authn"`
	} `yaml:"dpServer"`
	APIServer struct {
		Authn struct {
			Tokens *tokens `yaml:"tokens"`
		} `yaml:"authn"`
	} `yaml:"apiServer"`
}

// tokens is what a control plane believes of tokens of one kind.
type tokens struct {
	BootstrapAdminToken *bool `yaml:"bootstrapAdminToken"` // of user tokens
	EnableIssuer        *bool `yaml:"enableIssuer"`
	Validator           struct {
		UseSecrets *bool       `yaml:"useSecrets"`
		PublicKeys []publicKey `yaml:"publicKeys"`
	} `yaml:"validator"`
}

type publicKey struct {
	KID     string `yaml:"kid"`
	Mesh    string `yaml:"mesh"` // of dataplane tokens
	Key     string `yaml:"key"`
	KeyFile string `yaml:"keyFile"`

	parsed *rsa.PublicKey
}

// readConfig reads a configuration as a control plane does that starts: whatever it
// does not know or cannot read keeps it from starting.
func readConfig(text []byte) (*config, error) {
	dec := yaml.NewDecoder(bytes.NewReader(text))
	dec.KnownFields(true)
	c := &config{}
	if err := dec.Decode(c); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	if err := dec.Decode(&config{}); !errors.Is(err, io.EOF) {
		return nil, errors.New("configuration: there is more than one document")
	}
	return c, c.check()
}

// kinds returns what there is, by the kind of token.
func (c *config) kinds() map[string]*tokens {
	all := map[string]*tokens{
		"zone": c.DPServer.Authn.ZoneProxy.ZoneToken, "dataplane": c.DPServer.Authn.DPProxy.DPToken, "user": c.APIServer.Authn.Tokens,
	}
	for kind, t := range all {
		if t == nil {
			delete(all, kind)
		}
	}
	return all
}

// check parses every key, and wants each to be for one kind of token: control planes
// tell kinds apart by nothing else.
func (c *config) check() error {
	kindOf := map[string]string{} // by modulus
	for kind, t := range c.kinds() {
		if kind != "user" && t.BootstrapAdminToken != nil {
			return fmt.Errorf("configuration: bootstrapAdminToken among %s tokens", kind)
		}
		kids := map[string]bool{}
		for i := range t.Validator.PublicKeys {
			k := &t.Validator.PublicKeys[i]
			if err := k.parse(); err != nil {
				return fmt.Errorf("configuration: key %q of %s tokens: %w", k.KID, kind, err)
			}
			if k.Mesh != "" && kind != "dataplane" {
				return fmt.Errorf("configuration: key %q of %s tokens has a mesh", k.KID, kind)
			}
			modulus := k.parsed.N.String()
			if other, ok := kindOf[modulus]; ok {
				return fmt.Errorf("configuration: key %q is for %s and for %s tokens", k.KID, other, kind)
			}
			if kids[k.KID] {
				return fmt.Errorf("configuration: key ID %q is there twice", k.KID)
			}
			kindOf[modulus], kids[k.KID] = kind, true
		}
	}
	return nil
}

func (k *publicKey) parse() error {
	if _, err := strconv.Atoi(k.KID); err == nil || k.KID == "" {
		return errors.New("the key ID is that of a control plane's own key")
	}
	if (k.Key == "") == (k.KeyFile == "") {
		return errors.New("either key or keyFile has to be there")
	}
	text := []byte(k.Key)
	if k.KeyFile != "" {
		var err error
		if text, err = os.ReadFile(k.KeyFile); err != nil {
			return err
		}
	}
	block, rest := pem.Decode(text)
	if block == nil || strings.TrimSpace(string(rest)) != "" {
		return errors.New("it is not one PEM block")
	}
	var key any
	var err error
	switch block.Type {
	case "PUBLIC KEY":
		key, err = x509.ParsePKIXPublicKey(block.Bytes)
	case "RSA PUBLIC KEY":
		key, err = x509.ParsePKCS1PublicKey(block.Bytes)
	default:
		err = fmt.Errorf("it is a %q", block.Type)
	}
	if err != nil {
		return err
	}
	parsed, ok := key.(*rsa.PublicKey)
	if !ok {
		return errors.New("it is no RSA key")
	}
	k.parsed = parsed
	return nil
}
