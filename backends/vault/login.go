package vault

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/zonemint/zonemint/signer"
)

// loginFunc gets a token.
type loginFunc func(context.Context) (grant, error)

// authAnswer is what log-ins and renewals answer.
type authAnswer struct {
	Auth *authInfo `json:"auth"`
}

type authInfo struct {
	ClientToken   string `json:"client_token"`
	LeaseDuration int64  `json:"lease_duration"` // seconds
	Renewable     bool   `json:"renewable"`
	Type          string `json:"token_type"`
}

func (a *authInfo) lease() time.Duration { return time.Duration(a.LeaseDuration) * time.Second }

// login returns how a token is got. Files are read each time: what is in them
// is rotated by others.
func (o Options) login(c *client) (loginFunc, error) {
	switch o.Auth {
	case "agent":
		return func(context.Context) (grant, error) { return grant{}, nil }, nil
	case "token":
		return func(ctx context.Context) (grant, error) { return o.readToken(ctx, c) }, nil
	case "approle":
		return o.loginWith(c, o.appRole), nil
	case "kubernetes", "jwt":
		return o.loginWith(c, o.identityToken), nil
	case "cert":
		return o.loginWith(c, func() (map[string]string, []string, error) { return named("name", o.Role), nil, nil }), nil
	default:
		return nil, fmt.Errorf("no auth method %q", o.Auth)
	}
}

// credentials returns what to send, and which of that is secret.
type credentials func() (body map[string]string, secrets []string, err error)

func (o Options) appRole() (map[string]string, []string, error) {
	roleID := o.RoleID
	if o.RoleIDFile != "" {
		var err error
		if roleID, err = readSecret("role_id_file", o.RoleIDFile); err != nil {
			return nil, nil, err
		}
	}
	body := map[string]string{"role_id": roleID}
	if o.SecretIDFile == "" {
		return body, []string{roleID}, nil
	}
	secretID, err := readSecret("secret_id_file", o.SecretIDFile)
	if err != nil {
		return nil, nil, err
	}
	body["secret_id"] = secretID
	return body, []string{roleID, secretID}, nil
}

func (o Options) identityToken() (map[string]string, []string, error) {
	jwt, err := readSecret("jwt_file", o.JWTFile)
	if err != nil {
		return nil, nil, err
	}
	body := named("role", o.Role)
	body["jwt"] = jwt
	return body, []string{jwt}, nil
}

func named(key, value string) map[string]string {
	if value == "" {
		return map[string]string{}
	}
	return map[string]string{key: value}
}

func (o Options) loginWith(c *client, read credentials) loginFunc {
	op := "log in to vault with " + o.Auth
	refused := refusals{now: o.Now}
	return func(ctx context.Context) (g grant, err error) {
		body, secrets, err := read()
		if err != nil {
			return grant{}, fail(signer.Misconfigured, "%s: %w", op, err)
		}
		if err := refused.standing(body); err != nil {
			return grant{}, err
		}
		defer func() { refused.note(body, err) }()
		var said authAnswer
		err = c.do(ctx, request{op: op, method: http.MethodPost, path: "auth/" + o.AuthMount + "/login",
			namespace: &o.AuthNamespace, body: body, secrets: secrets}, &said)
		if f, ok := errors.AsType[*failure](err); ok && f.status == http.StatusBadRequest {
			err = &failure{signer.Denied, f.status, f.err} // a wrong credential is a bad request here
		}
		if err != nil {
			return grant{}, err
		}
		if said.Auth == nil || !isToken(said.Auth.ClientToken) {
			return grant{}, fail(signer.Misconfigured, "%s: the answer holds no token; methods with a second factor are not supported", op)
		}
		a := said.Auth
		return grant{token: a.ClientToken, lease: a.lease(), renewable: a.Renewable, own: a.Type != "batch"}, nil
	}
}

// refusals remembers how often a server has refused the same credential. Vault locks
// a role out for a quarter of an hour after five of them, for every server that uses
// it (https://developer.hashicorp.com/vault/docs/concepts/user-lockout), so after
// two they stand for a while, or until there is another credential. One
// goroutine uses it.
type refusals struct {
	now  func() time.Time
	body map[string]string
	err  error
	at   time.Time
	n    int
}

const (
	fewRefusals    = 2
	refusalsStand  = 8 * time.Minute
	refusalsForget = 15 * time.Minute
)

func (r *refusals) standing(body map[string]string) error {
	if r.n < fewRefusals || !maps.Equal(r.body, body) || r.now().Sub(r.at) >= refusalsStand {
		return nil
	}
	return r.err
}

func (r *refusals) note(body map[string]string, err error) {
	switch {
	case codeOf(err) != signer.Denied:
		if err == nil {
			r.n = 0
		}
		return
	case !maps.Equal(r.body, body) || r.now().Sub(r.at) >= refusalsForget:
		r.n = 0
	}
	r.body, r.err, r.at = body, err, r.now()
	r.n++
}

// readToken takes the token that somebody else has put there, and asks how long it lives.
func (o Options) readToken(ctx context.Context, c *client) (grant, error) {
	const op = "read the vault token"
	token := strings.TrimSpace(os.Getenv(o.TokenEnv))
	if o.TokenFile != "" {
		var err error
		if token, err = readSecret("token_file", o.TokenFile); err != nil {
			return grant{}, fail(signer.Misconfigured, "%s: %w", op, err)
		}
	}
	if !isToken(token) {
		return grant{}, fail(signer.Misconfigured, "%s: there is no token in the file or variable of the settings", op)
	}
	var said struct {
		Data struct {
			TTL       int64 `json:"ttl"` // seconds
			Renewable bool  `json:"renewable"`
		} `json:"data"`
	}
	err := c.do(ctx, request{op: "look up the vault token", method: http.MethodGet, path: "auth/token/lookup-self",
		namespace: &o.AuthNamespace, token: token}, &said)
	if refused, unknown := tokenRefused(err); refused && !unknown {
		return grant{token: token}, nil // it may not look at itself, and so be it
	}
	if err != nil {
		return grant{}, err
	}
	return grant{token: token, lease: time.Duration(said.Data.TTL) * time.Second, renewable: said.Data.Renewable}, nil
}

// readSecret names the setting in its errors and quotes nothing of the file.
func readSecret(setting, file string) (string, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("the setting %s: %w", setting, err)
	}
	secret := strings.TrimSpace(string(text))
	if secret == "" {
		return "", fmt.Errorf("the setting %s names an empty file", setting)
	}
	return secret, nil
}

// isToken says whether text can be sent in a header.
func isToken(text string) bool {
	return text != "" && !strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r > '~' })
}
