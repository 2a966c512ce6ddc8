package kuma

import (
	"bytes"
	"cmp"
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
	"unicode"

	"github.com/zonemint/zonemint/token"
)

// Bounds of what is read from a control plane.
const (
	maxSecretPage = 64 << 20
	maxSecretBody = 4 << 20
	secretsPage   = 100
	maxPages      = 10_000
)

// Reader reads secrets of a control plane over its REST API. It changes nothing
// there, and follows no redirects: its token is for the server that was named. It
// can be used by several goroutines.
type Reader struct {
	base  string
	token string
	http  *http.Client
}

// ReaderOptions say how to reach a control plane.
type ReaderOptions struct {
	Token     string            // of a user with the rights of an administrator; empty where localhost is one
	Transport http.RoundTripper // nil: http.DefaultTransport
	Timeout   time.Duration     // of one request; 0: 30 seconds
}

// NewReader returns a reader of the control plane at a URL such as
// https://kuma.example.com:5682. It does not connect yet.
func NewReader(addr string, o ReaderOptions) (*Reader, error) {
	u, err := url.Parse(addr)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https":
		return nil, errors.New("is not a URL like https://kuma.example.com:5682")
	case u.User != nil:
		return nil, errors.New("holds a user name; the credential goes into a file")
	case u.RawQuery != "" || u.Fragment != "":
		return nil, errors.New("has a query or a fragment, which make no sense here")
	}
	return &Reader{
		base: strings.TrimSuffix(u.String(), "/"), token: o.Token,
		http: &http.Client{
			Transport: o.Transport, Timeout: cmp.Or(o.Timeout, 30*time.Second),
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}, nil
}

// Secrets returns the secrets of a mesh, or the GlobalSecrets if mesh is empty,
// that are wanted. Of the others no content is kept.
func (r *Reader) Secrets(ctx context.Context, mesh string, want func(Ref) bool) ([]Secret, error) {
	path := "/global-secrets"
	if mesh != "" {
		path = "/meshes/" + url.PathEscape(mesh) + "/secrets"
	}
	names, err := r.names(ctx, path)
	if err != nil {
		return nil, err
	}
	var out []Secret
	for _, name := range names {
		ref := Ref{mesh, name}
		if !want(ref) {
			continue
		}
		var answer struct {
			Data []byte `json:"data"`
		}
		// It was listed. A 404 may be a proxy's, and what is left out, such as a list of
		// revoked tokens, would be missed by nobody.
		if err := r.get(ctx, path+"/"+url.PathEscape(name), maxSecretBody, &answer); err != nil {
			return nil, err
		}
		out = append(out, Secret{ref, answer.Data})
	}
	return out, nil
}

// names lists the names of secrets, page by page.
func (r *Reader) names(ctx context.Context, path string) ([]string, error) {
	var out []string
	offset := "0"
	for range maxPages {
		var page struct {
			Items []struct {
				Name string `json:"name"`
			} `json:"items"`
			Next *string `json:"next"`
		}
		query := url.Values{"size": {strconv.Itoa(secretsPage)}, "offset": {offset}}
		if err := r.get(ctx, path+"?"+query.Encode(), maxSecretPage, &page); err != nil {
			return nil, err
		}
		for _, item := range page.Items {
			out = append(out, item.Name)
		}
		if page.Next == nil || *page.Next == "" {
			return out, nil
		}
		// Only the position is taken from the link: it may name another host.
		next, err := url.Parse(*page.Next)
		if err != nil || next.Query().Get("offset") == "" || next.Query().Get("offset") == offset {
			break
		}
		offset = next.Query().Get("offset")
	}
	return nil, fmt.Errorf("GET %s: the control plane's list of secrets does not get on", path)
}

// unreal is the name of a zone, dataplane or user that cannot exist: names have no
// spaces.
const unreal = "proof of possession for zonemint"

// ProofToken has the control plane sign a token that shows which key it signs
// with: valid for a minute, and good for nothing that can exist.
func (r *Reader) ProofToken(ctx context.Context, p token.Profile, mesh string) (string, error) {
	path, body := "/tokens/"+string(p), map[string]any{"validFor": "1m"}
	switch p {
	case token.ProfileZone:
		body["zone"], body["scope"] = unreal, []string{}
	case token.ProfileDataplane:
		body["name"], body["mesh"] = unreal, mesh
	case token.ProfileUser:
		body["name"], body["groups"] = unreal, []string{}
	default:
		return "", fmt.Errorf("control planes issue no %s tokens", p)
	}
	text, err := json.Marshal(body)
	if err != nil {
		return "", err
	}
	out, err := r.do(ctx, http.MethodPost, path, bytes.NewReader(text), token.MaxTokenSize)
	return strings.TrimSpace(string(out)), err
}

func (r *Reader) get(ctx context.Context, path string, limit int64, into any) error {
	body, err := r.do(ctx, http.MethodGet, path, nil, limit)
	if err != nil {
		return err
	}
	defer clear(body)
	if json.Unmarshal(body, into) != nil { // the cause may quote the body
		return fmt.Errorf("GET %s: the answer is not what a control plane says", pathOnly(path))
	}
	return nil
}

func (r *Reader) do(ctx context.Context, method, path string, body io.Reader, limit int64) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, r.base+path, body)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/json")
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("Accept", "*/*")
	}
	if r.token != "" {
		req.Header.Set("Authorization", "Bearer "+r.token)
	}
	resp, err := r.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("control plane: %w", err)
	}
	defer resp.Body.Close()
	out, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("control plane: %s %s: %w", method, pathOnly(path), err)
	case resp.StatusCode != http.StatusOK:
		return nil, newStatusError(method, path, resp.StatusCode, out)
	case int64(len(out)) > limit:
		return nil, fmt.Errorf("control plane: %s %s: the answer has more than %d bytes", method, pathOnly(path), limit)
	}
	return out, nil
}

func pathOnly(path string) string {
	path, _, _ = strings.Cut(path, "?")
	return path
}

// StatusError is a request that a control plane refused.
type StatusError struct {
	Code   int
	Method string
	Path   string
	Text   string // the control plane's own words, if it said any
}

func newStatusError(method, path string, code int, body []byte) *StatusError {
	e := &StatusError{Code: code, Method: method, Path: pathOnly(path)}
	var said struct {
		Title  string `json:"title"`
		Detail string `json:"detail"`
	}
	if json.Unmarshal(body, &said) == nil {
		e.Text = strings.Map(func(c rune) rune {
			if !unicode.IsPrint(c) {
				return -1
			}
			return c
		}, fmt.Sprintf("%.100s (%.200s)", said.Title, said.Detail))
	}
	return e
}

func (e *StatusError) Error() string {
	text := cmp.Or(e.Text, http.StatusText(e.Code))
	text = fmt.Sprintf("control plane: %s %s: %d, %s", e.Method, e.Path, e.Code, text)
	switch {
	case e.Code >= 300 && e.Code <= 399:
		return text + "; redirects are not followed, name the control plane's own address"
	case e.Code == http.StatusUnauthorized, e.Code == http.StatusForbidden:
		return text + "; reading secrets takes a user token of an administrator"
	default:
		return text
	}
}
