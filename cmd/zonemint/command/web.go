package command

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"connectrpc.com/connect"
)

// web is what of a server is no call: JWK sets and revocation feeds.
type web struct {
	conn  connection
	http  *http.Client
	addr  string
	token string
}

// get fetches a document. All of it or none: of a list of revoked tokens half is
// worse than none.
func (w web) get(ctx context.Context, path, accept string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, w.conn.timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, w.addr+path, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", accept)
	req.Header.Set("Authorization", "Bearer "+w.token)
	resp, err := w.http.Do(req)
	if err != nil {
		return nil, w.conn.failed(connect.NewError(connect.CodeUnavailable, err))
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, w.refused(resp)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, w.conn.failed(connect.NewError(connect.CodeUnavailable, err))
	}
	return body, nil
}

// refused is an answer that is not the document, as a call would have failed.
func (w web) refused(resp *http.Response) error {
	body, _ := io.ReadAll(io.LimitReader(resp.Body, 2000)) // the status says enough
	text := strings.TrimSpace(string(body))
	var e struct {
		Message string `json:"message"` // as calls have it
	}
	if json.Unmarshal(body, &e) == nil {
		text = e.Message
	}
	if text == "" || strings.ContainsAny(text, "<\n") {
		text = fmt.Sprintf("the server answered %s for %s", resp.Status, resp.Request.URL.Path)
	}
	code := codeOf(resp.StatusCode)
	text = w.conn.advise(code, printable(text), resp.Header.Get("X-Request-Id"))
	return &callError{connect.NewError(code, errors.New(text)), text}
}

// codeOf returns the code of a call that fails for the same reason.
func codeOf(status int) connect.Code {
	switch status {
	case http.StatusBadRequest:
		return connect.CodeInvalidArgument
	case http.StatusUnauthorized:
		return connect.CodeUnauthenticated
	case http.StatusForbidden:
		return connect.CodePermissionDenied
	case http.StatusNotFound:
		return connect.CodeNotFound
	case http.StatusTooManyRequests:
		return connect.CodeResourceExhausted
	case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return connect.CodeUnavailable
	default:
		return connect.CodeUnknown
	}
}

// keysetPath is the name of a keyset in a URL. Its slash is one there too.
func keysetPath(name, rest string) string {
	parts := strings.Split(name, "/")
	for i, part := range parts {
		parts[i] = url.PathEscape(part)
	}
	return "/keysets/" + strings.Join(parts, "/") + rest
}
