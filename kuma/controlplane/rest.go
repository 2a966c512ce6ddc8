package controlplane

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/zonemint/zonemint/kuma"
)

const (
	// callTimeout bounds every request.
	callTimeout = 10 * time.Second
	// maxAnswer is the longest answer that is read, in bytes: a page of secrets of
	// which each may be as large as Kubernetes allows is not expected.
	maxAnswer = 64 << 20
	// pageSize is how many secrets are asked for at once, the most that control
	// planes give.
	pageSize = 1000
	// maxPages bounds a list that leads round in circles.
	maxPages = 1000
)

// REST is a global control plane as its REST API shows it. It is safe for
// concurrent use.
//
// The API cannot compare and swap: what somebody else writes into a secret between
// a Get and the Put that is based on it is lost. Where zonemint writes a secret over
// REST it should be the only writer.
type REST struct {
	base   string
	client *http.Client
	config RESTConfig
}

// RESTConfig says how to reach the REST API of a control plane. Address aside, all of
// it is optional.
type RESTConfig struct {
	// Address is the URL of the API, for example https://cp.example.com:5682.
	Address string
	// Credential returns the token of a user who may administrate. It is called for
	// every request, so that a file can be replaced at any time. Nil sends none.
	Credential func() (string, error)
	// Headers are sent with every request, for what stands before the control plane.
	Headers map[string]string
	// Transport makes the requests. Nil is a copy of http.DefaultTransport.
	Transport http.RoundTripper
}

// NewREST returns a control plane. It does not connect yet.
func NewREST(c RESTConfig) (*REST, error) {
	u, err := url.Parse(c.Address)
	switch {
	case err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https"):
		return nil, errors.New("the address is not a URL like https://cp.example.com:5682")
	case u.User != nil:
		return nil, errors.New("the address holds a user name; the credential goes into a file")
	case u.RawQuery != "" || u.Fragment != "":
		return nil, errors.New("the address has a query or a fragment, which make no sense here")
	}
	if c.Transport == nil {
		c.Transport = http.DefaultTransport.(*http.Transport).Clone()
	}
	return &REST{
		base: strings.TrimRight(u.String(), "/"), config: c,
		// The credential is for the server that was named, and for nobody whom an
		// answer names.
		client: &http.Client{Transport: c.Transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }},
	}, nil
}

// resource is a secret in the API's own form.
type resource struct {
	Type   string            `json:"type"`
	Mesh   string            `json:"mesh,omitempty"`
	Name   string            `json:"name"`
	Labels map[string]string `json:"labels,omitempty"`
	Data   []byte            `json:"data"` // in base64
}

func (r resource) secret() Secret {
	return Secret{Ref: kuma.Ref{Mesh: r.Mesh, Name: r.Name}, Labels: r.Labels, Data: r.Data}
}

// Get returns a secret. Its errors match those of this package.
func (c *REST) Get(ctx context.Context, ref kuma.Ref) (Secret, error) {
	var r resource
	if err := c.call(ctx, http.MethodGet, c.path(ref), nil, &r); err != nil {
		return Secret{}, fmt.Errorf("read %s: %w", ref, err)
	}
	if got := (kuma.Ref{Mesh: r.Mesh, Name: r.Name}); got != ref {
		return Secret{}, fmt.Errorf("read %s: %w: it answered with %s", ref, ErrUnavailable, got)
	}
	s := r.secret()
	s.Version = "rest" // there is nothing to compare; it says that the secret is there
	return s, nil
}

// List returns the secrets of a mesh, or the GlobalSecrets if it is empty, whose names
// begin with the prefix.
func (c *REST) List(ctx context.Context, mesh, prefix string) ([]Secret, error) {
	// Control planes that know the parameter leave out what does not contain it,
	// older ones ignore it.
	collection := c.path(kuma.Ref{Mesh: mesh})
	next := collection + "?" + url.Values{"size": {strconv.Itoa(pageSize)}, "name": {prefix}}.Encode()
	var out []Secret
	for range maxPages {
		var page struct {
			Total *int       `json:"total"`
			Items []resource `json:"items"`
			Next  *string    `json:"next"`
		}
		if err := c.call(ctx, http.MethodGet, next, nil, &page); err != nil {
			return nil, fmt.Errorf("list the secrets: %w", err)
		}
		if page.Total == nil { // what else answers with JSON must not pass for an empty list
			return nil, fmt.Errorf("list the secrets: %w: the answer is not a list", ErrUnavailable)
		}
		for _, r := range page.Items {
			if strings.HasPrefix(r.Name, prefix) && r.Mesh == mesh {
				s := r.secret()
				s.Version = "rest"
				out = append(out, s)
			}
		}
		if page.Next == nil || *page.Next == "" {
			return out, nil
		}
		// Control planes build the link from what they think their address is, which
		// behind a proxy is another one. So only its query counts, and the
		// credential goes nowhere else.
		link, err := url.Parse(*page.Next)
		if err != nil || !link.Query().Has("offset") {
			return nil, fmt.Errorf("list the secrets: %w: the link to the next page is none", ErrUnavailable)
		}
		next = collection + "?" + link.RawQuery
	}
	return nil, fmt.Errorf("list the secrets: %w: the list does not end", ErrUnavailable)
}

// Put makes or replaces a secret, if [Check] lets it.
func (c *REST) Put(ctx context.Context, s Secret) error {
	if err := Check(s); err != nil {
		return err
	}
	r := resource{Type: "GlobalSecret", Name: s.Ref.Name, Labels: s.Labels, Data: s.Data}
	if s.Ref.Mesh != "" {
		r.Type, r.Mesh = "Secret", s.Ref.Mesh
	}
	body, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("write %s: %w", s.Ref, err)
	}
	err = c.call(ctx, http.MethodPut, c.path(s.Ref), body, nil)
	if errors.Is(err, ErrNotFound) && s.Ref.Mesh != "" {
		err = fmt.Errorf("mesh %s: %w", s.Ref.Mesh, ErrNoMesh)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", s.Ref, err)
	}
	return nil
}

// Delete deletes a secret, if [CheckName] lets it. One that is not there is not an
// error.
func (c *REST) Delete(ctx context.Context, s Secret) error {
	if err := CheckName(s.Ref); err != nil {
		return err
	}
	err := c.call(ctx, http.MethodDelete, c.path(s.Ref), nil, nil)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return fmt.Errorf("delete %s: %w", s.Ref, err)
	}
	return nil
}

// path returns the URL of a secret; without a name that of all of its kind.
func (c *REST) path(r kuma.Ref) string {
	path := c.base + "/global-secrets/" + url.PathEscape(r.Name)
	if r.Mesh != "" {
		path = c.base + "/meshes/" + url.PathEscape(r.Mesh) + "/secrets/" + url.PathEscape(r.Name)
	}
	return strings.TrimSuffix(path, "/")
}

// call makes a request, and reads the answer into out unless that is nil.
func (c *REST) call(ctx context.Context, method, url string, body []byte, out any) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	if err := c.dress(req, body != nil); err != nil {
		return err
	}
	resp, err := c.client.Do(req)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, bare(err))
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	if resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusCreated && resp.StatusCode != http.StatusNoContent {
		return refused(resp, answer)
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(answer, out); err != nil {
		// The answer may hold secrets, and so may what a decoder says of it.
		return fmt.Errorf("%w: the answer is not what the API of a control plane says", ErrUnavailable)
	}
	return nil
}

func (c *REST) dress(req *http.Request, body bool) error {
	for name, value := range c.config.Headers {
		req.Header.Set(name, value)
	}
	req.Header.Set("Accept", "application/json")
	if body {
		req.Header.Set("Content-Type", "application/json")
	}
	if c.config.Credential == nil {
		return nil
	}
	credential, err := c.config.Credential()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrDenied, err)
	}
	req.Header.Set("Authorization", "Bearer "+credential)
	return nil
}

// bare takes the method and the URL off an error, which the caller's text has in
// other words.
func bare(err error) error {
	if e, ok := errors.AsType[*url.Error](err); ok {
		return e.Err
	}
	return err
}

// refused turns an answer that is not the one hoped for into an error.
func refused(resp *http.Response, body []byte) error {
	said := resp.Status
	var e struct {
		Title   string `json:"title"`
		Details string `json:"details"` // newer control planes say it again as "detail"
	}
	if json.Unmarshal(body, &e) == nil && e.Title != "" {
		said = fmt.Sprintf("%s, %.200q", resp.Status, e.Title+": "+e.Details)
	}
	switch code := resp.StatusCode; {
	case code == http.StatusNotFound:
		return fmt.Errorf("%w (%s)", ErrNotFound, said)
	case code == http.StatusBadRequest && meshNotFound(body):
		return fmt.Errorf("%w (%s)", ErrNoMesh, said)
	case code == http.StatusUnauthorized:
		return fmt.Errorf("%w (%s): it needs the token of a user in group mesh-system:admin; see token_file", ErrDenied, said)
	case code == http.StatusForbidden:
		return fmt.Errorf("%w (%s): its user may not write secrets, which is for the group mesh-system:admin", ErrDenied, said)
	case code == http.StatusMethodNotAllowed:
		return fmt.Errorf("%w (%s): if the control plane runs on Kubernetes, use kubernetes: instead of rest:, and if it is one of a zone, name the global one", ErrReadOnly, said)
	case code == http.StatusConflict || code == http.StatusPreconditionFailed:
		return fmt.Errorf("%w (%s)", ErrConflict, said)
	case code >= 300 && code < 400:
		return fmt.Errorf("%w: it answered %s, a redirect, which is not followed so that the credential goes nowhere else", ErrUnavailable, resp.Status)
	case code >= 500 || code == http.StatusTooManyRequests || code == http.StatusRequestTimeout:
		return fmt.Errorf("%w: %s", ErrUnavailable, said)
	default:
		return fmt.Errorf("the control plane answered %s", said)
	}
}

// meshNotFound says whether a 400 is about a mesh that is not there.
func meshNotFound(body []byte) bool {
	text := strings.ToLower(string(body))
	return strings.Contains(text, "mesh") && strings.Contains(text, "not found")
}
