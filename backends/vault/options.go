package vault

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Options say where the server is and how to log in. Tags name the settings of
// a configuration file.
type Options struct {
	// Address is where the server is: https://HOST:PORT, unix:///PATH for a
	// Vault Agent on a socket, or http:// for one on this machine.
	Address string `setting:"address"`
	// InsecureHTTP allows http:// to other machines. Whoever is on the way
	// then reads the token, which signs.
	InsecureHTTP bool `setting:"insecure_http"`
	// Redirects are the HOST:PORT of other servers of the cluster to which a
	// standby may redirect. The token is sent to no other. Servers that
	// forward to the active one, as they do by themselves, need none.
	Redirects []string `setting:"redirects"`

	CAFile     string `setting:"ca_file"`     // PEM of the authorities to trust; empty for the system's
	ServerName string `setting:"server_name"` // expected in the certificate; empty for the address's
	CertFile   string `setting:"cert_file"`   // client certificate, PEM, read again for each connection
	KeyFile    string `setting:"key_file"`    // its private key

	Namespace string `setting:"namespace"`  // of the transit engine; empty for the root
	Mount     string `setting:"mount"`      // of the transit engine; empty means "transit"
	KeyPrefix string `setting:"key_prefix"` // before the names of keys, which begin with "zonemint-"

	// Auth is how to get a token: "token", "approle", "kubernetes", "jwt",
	// "cert", or "agent", which sends none because a Vault Agent adds it.
	Auth          string `setting:"auth"`
	AuthMount     string `setting:"auth_mount"`     // empty means the method's name
	AuthNamespace string `setting:"auth_namespace"` // empty means Namespace
	Role          string `setting:"role"`           // kubernetes, jwt, cert (may be empty)
	TokenFile     string `setting:"token_file"`     // token: read again when the token in it is refused
	TokenEnv      string `setting:"token_env"`      // token: name of an environment variable
	RoleID        string `setting:"role_id"`        // approle
	RoleIDFile    string `setting:"role_id_file"`   // approle, instead of RoleID
	SecretIDFile  string `setting:"secret_id_file"` // approle; empty if the role needs none
	JWTFile       string `setting:"jwt_file"`       // kubernetes (empty means the pod's own), jwt

	// MaxConnections bounds the requests under way; others wait. 0 means 64.
	MaxConnections int `setting:"max_connections"`
	// RequestTimeout bounds one request whose context has no earlier end. 0 means 10 s.
	RequestTimeout time.Duration `setting:"request_timeout"`

	Logger *slog.Logger     `setting:"-"` // nil means slog.Default()
	Now    func() time.Time `setting:"-"` // nil means time.Now
}

// podToken is where Kubernetes mounts the token of a pod's service account.
const podToken = "/var/run/secrets/kubernetes.io/serviceaccount/token" //nolint:gosec // a path

func (o Options) complete() Options {
	or := func(s *string, otherwise string) {
		if *s == "" {
			*s = otherwise
		}
	}
	o.Mount, o.AuthMount = strings.Trim(o.Mount, "/"), strings.Trim(o.AuthMount, "/")
	or(&o.Mount, "transit")
	or(&o.AuthMount, o.Auth)
	or(&o.AuthNamespace, o.Namespace)
	if o.Auth == "kubernetes" {
		or(&o.JWTFile, podToken)
	}
	if o.MaxConnections == 0 {
		o.MaxConnections = 64
	}
	if o.RequestTimeout == 0 {
		o.RequestTimeout = 10 * time.Second
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return o
}

var (
	errAddress = errors.New("the setting address has to be https://HOST:PORT, or unix:///PATH, " +
		"with nothing after it and no credentials in it")
	errPlainHTTP = errors.New("the setting address is http:// to another machine: whoever is on the way reads the token; " +
		"use https://, or set insecure_http to accept that")
)

// check names all faults at once, and never a value that may be a secret.
func (o Options) check() error {
	_, addressErr := o.parseAddress()
	errs := []error{addressErr}
	bad := func(is bool, what string) {
		if is {
			errs = append(errs, errors.New(what))
		}
	}
	path := regexp.MustCompile(`^[A-Za-z0-9_-]+([A-Za-z0-9_./-]*[A-Za-z0-9_-])?$`)
	isPath := func(s string) bool { return path.MatchString(s) && !strings.Contains(s, "..") }
	bad(!isPath(o.Mount), "the setting mount has to be the path of a secrets engine, for example transit")
	bad(o.Auth != "agent" && o.Auth != "token" && !isPath(o.AuthMount) && o.AuthMount != "", "the setting auth_mount has to be the path of an auth method")
	bad(!regexp.MustCompile(`^([A-Za-z0-9_][A-Za-z0-9_.-]*)?$`).MatchString(o.KeyPrefix),
		"the setting key_prefix may have letters, digits, '_', '-' and '.', and begins with neither of the last two")
	bad((o.CertFile == "") != (o.KeyFile == ""), "the settings cert_file and key_file go together")
	bad(o.MaxConnections < 0, "the setting max_connections is negative")
	bad(o.RequestTimeout < 0, "the setting request_timeout is negative")
	return errors.Join(append(errs, o.checkAuth()...)...)
}

// checkAuth compares the settings with those that the way to log in has.
func (o Options) checkAuth() (errs []error) {
	set := map[string]bool{
		"role": o.Role != "", "token_file": o.TokenFile != "", "token_env": o.TokenEnv != "", "role_id": o.RoleID != "",
		"role_id_file": o.RoleIDFile != "", "secret_id_file": o.SecretIDFile != "", "jwt_file": o.JWTFile != "",
	}
	uses := map[string]struct{ oneOf, all, may []string }{
		"token":      {oneOf: []string{"token_file", "token_env"}},
		"approle":    {oneOf: []string{"role_id", "role_id_file"}, may: []string{"secret_id_file"}},
		"kubernetes": {all: []string{"role", "jwt_file"}},
		"jwt":        {all: []string{"jwt_file"}, may: []string{"role"}},
		"cert":       {may: []string{"role"}},
		"agent":      {},
	}
	u, ok := uses[o.Auth]
	if !ok {
		return []error{errors.New("the setting auth has to be token, approle, kubernetes, jwt, cert or agent")}
	}
	if o.Auth == "cert" && (o.CertFile == "" || !strings.HasPrefix(o.Address, "https:")) {
		errs = append(errs, errors.New("auth cert needs the settings cert_file and key_file, and an address with https"))
	}
	have := 0
	for _, name := range u.oneOf {
		if set[name] {
			have++
		}
	}
	if len(u.oneOf) > 0 && have != 1 {
		errs = append(errs, fmt.Errorf("auth %s needs one of the settings %s", o.Auth, strings.Join(u.oneOf, ", ")))
	}
	for _, name := range u.all {
		if !set[name] {
			errs = append(errs, fmt.Errorf("auth %s needs the setting %s", o.Auth, name))
		}
	}
	known := slices.Concat(u.oneOf, u.all, u.may)
	for name, is := range set {
		if is && !slices.Contains(known, name) {
			errs = append(errs, fmt.Errorf("auth %s does not use the setting %s", o.Auth, name))
		}
	}
	return errs
}

// parseAddress never quotes the address in an error: it may have a password.
func (o Options) parseAddress() (*url.URL, error) {
	u, err := url.Parse(o.Address)
	if err != nil || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, errAddress
	}
	switch {
	case u.Scheme == "unix" && u.Host == "" && strings.HasPrefix(u.Path, "/"):
		return u, nil
	case u.Host == "" || strings.Trim(u.Path, "/") != "":
		return nil, errAddress
	case u.Scheme == "https", u.Scheme == "http" && (o.InsecureHTTP || loopback(u.Hostname())):
		return u, nil
	case u.Scheme == "http":
		return nil, errPlainHTTP
	default:
		return nil, errAddress
	}
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
