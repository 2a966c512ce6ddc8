package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// The variables of control planes of Kong Mesh that the pages use.
const (
	modeVariable     = "KMESH_MODE"
	zoneVariable     = "KMESH_MULTIZONE_ZONE_NAME"
	globalVariable   = "KMESH_MULTIZONE_ZONE_GLOBAL_ADDRESS"
	authVariable     = "KMESH_MULTIZONE_GLOBAL_KDS_AUTH_TYPE"
	pathVariable     = "KMESH_MULTIZONE_ZONE_KDS_AUTH_CP_TOKEN_PATH"
	inlineVariable   = "KMESH_MULTIZONE_ZONE_KDS_AUTH_CP_TOKEN_INLINE"
	variablePrefixes = `^(KMESH|KUMA)_`
)

// plane is a control plane that is to be started.
type plane struct {
	by     string // the program that starts it
	env    map[string]string
	config []byte
}

// started is what is remembered of a control plane.
type started struct {
	By   string `json:"by"`
	Mode string `json:"mode"`
	// Of a global control plane: whether zones have to authenticate, and its
	// configuration.
	Auth   string `json:"auth,omitempty"`
	Config []byte `json:"config,omitempty"`
	// Of a zone: its name, and the ID of the token that the global control plane has
	// accepted.
	Zone string `json:"zone,omitempty"`
	JTI  string `json:"jti,omitempty"`
	// Kids are the keys that it was given, by the kind of token, and Issuers the kinds
	// that it issues itself.
	Kids    map[string][]string `json:"kids"`
	Issuers map[string]bool     `json:"issuers"`
}

// start starts a control plane and remembers it.
func (p plane) start() error {
	if err := p.checkVariables(); err != nil {
		return err
	}
	c, err := readConfig(p.config)
	if err != nil {
		return err
	}
	s := started{By: p.by, Mode: p.env[modeVariable], Kids: map[string][]string{}, Issuers: map[string]bool{}}
	for kind, t := range c.kinds() {
		s.Issuers[kind] = t.EnableIssuer == nil || *t.EnableIssuer
		for _, k := range t.Validator.PublicKeys {
			s.Kids[kind] = append(s.Kids[kind], k.KID)
		}
	}
	switch s.Mode {
	case "global":
		s.Auth, s.Config = p.env[authVariable], p.config
	case "zone":
		if err := p.connect(&s); err != nil {
			return err
		}
	}
	return remember(s)
}

// checkVariables knows every variable and the values that it can have.
func (p plane) checkVariables() error {
	known := map[string]struct{ mode, values string }{
		modeVariable:   {"", "^(global|zone)$"},
		zoneVariable:   {"zone", `^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$`},
		globalVariable: {"zone", `^grpcs://`}, // no credential goes over grpc://
		authVariable:   {"global", "^cpToken$"},
		pathVariable:   {"zone", "^/"},
		inlineVariable: {"zone", "."},
	}
	for name, value := range p.env {
		k, ok := known[name]
		switch {
		case !ok && regexp.MustCompile(variablePrefixes).MatchString(name):
			return fmt.Errorf("there is no setting %s", name)
		case !ok:
		case !regexp.MustCompile(k.values).MatchString(value):
			return fmt.Errorf("%s has a value that means nothing", name)
		case k.mode != "" && k.mode != p.env[modeVariable]:
			return fmt.Errorf("%s means nothing in a control plane whose mode is %q", name, p.env[modeVariable])
		}
	}
	if p.env[modeVariable] == "" {
		return fmt.Errorf("%s is not set", modeVariable)
	}
	return nil
}

// connect is what a zone does first: it shows its token to the global control plane.
func (p plane) connect(s *started) error {
	s.Zone = p.env[zoneVariable]
	if u, err := url.Parse(p.env[globalVariable]); err != nil || u.Port() == "" || s.Zone == "" {
		return errors.New("a zone needs a name and the address of the global control plane")
	}
	path, inline := p.env[pathVariable], p.env[inlineVariable]
	if (path == "") == (inline == "") {
		return errors.New("a zone needs its token either as text or as a file")
	}
	if path != "" {
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		inline = string(text)
	}
	globals, err := running()
	if err != nil {
		return err
	}
	for by, global := range globals {
		if s.JTI, err = global.authenticate(inline, s.Zone); err != nil {
			return fmt.Errorf("the global control plane that %s started refuses zone %s: %w", by, s.Zone, err)
		}
	}
	return nil
}

// statePath returns where the control planes are remembered, one a line.
func statePath() (string, error) {
	dir := os.Getenv("MESHTOOLS_STATE")
	if dir == "" {
		return "", errors.New("MESHTOOLS_STATE names no folder")
	}
	return filepath.Join(dir, "started.jsonl"), nil
}

func remember(s started) error {
	path, err := statePath()
	if err != nil {
		return err
	}
	line, err := json.Marshal(s)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(append(line, '\n'))
	return errors.Join(err, f.Close())
}

// running returns the global control planes, each as it was started last, by who did.
// Pages that start it in several ways mean one control plane, so a zone has to get
// along with all of them.
func running() (map[string]started, error) {
	path, err := statePath()
	if err != nil {
		return nil, err
	}
	text, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	globals := map[string]started{}
	for line := range strings.Lines(string(text)) {
		var s started
		if err := json.Unmarshal([]byte(line), &s); err != nil {
			return nil, err
		}
		if s.Mode == "global" {
			globals[s.By] = s
		}
	}
	if len(globals) == 0 {
		return nil, errors.New("no global control plane was started")
	}
	return globals, nil
}
