package token

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

const (
	// maxPage is the longest page that is read by polling, in bytes.
	maxPage = 16 << 20
	// pageLimit is how many entries are asked for at once.
	pageLimit = 10_000
	// longestRetryAfter bounds for how long a server can make its readers wait.
	longestRetryAfter = time.Minute

	watchProcedure = "/zonemint.v1.RevocationService/WatchRevocations"
	connectJSON    = "application/connect+json"
)

// feedClient makes the requests for a revocation feed. No error of it holds the
// URL, the credential, or text that the server wrote.
type feedClient struct {
	pages   string // URL without its query
	watch   string // URL
	keyset  string
	client  *http.Client
	options RevocationOptions
}

// pageTag is the entity tag of the page at a URL.
type pageTag struct{ url, etag string }

// retryLaterError is an error of a server that says when to come back.
type retryLaterError struct {
	status int
	after  time.Duration
}

func (e *retryLaterError) Error() string { return fmt.Sprintf("status %d", e.status) }

func newFeedClient(baseURL, keyset string, o RevocationOptions) (feedClient, error) {
	if err := checkURL(baseURL, o.AllowPlainHTTP); err != nil {
		return feedClient{}, fmt.Errorf("revocations: %w", err)
	}
	if strings.Contains(baseURL, "?") {
		return feedClient{}, errors.New("revocations: URL has a query")
	}
	path, err := keysetPath(keyset)
	if err != nil {
		return feedClient{}, fmt.Errorf("revocations: %w", err)
	}
	base := strings.TrimRight(baseURL, "/")
	return feedClient{
		pages:   base + "/keysets/" + path + "/revocations",
		watch:   base + watchProcedure,
		keyset:  keyset,
		client:  &http.Client{Transport: o.Transport, CheckRedirect: sameOrigin},
		options: o,
	}, nil
}

// keysetPath is the name of a keyset in a URL. It may have two parts.
func keysetPath(name string) (string, error) {
	parts := strings.Split(name, "/")
	if len(parts) > 2 || len(name) > maxFeedName {
		return "", fmt.Errorf("%.64q is not the name of a keyset", name)
	}
	for i, part := range parts {
		if part == "" || part == "." || part == ".." {
			return "", fmt.Errorf("%.64q is not the name of a keyset", name)
		}
		parts[i] = url.PathEscape(part)
	}
	return strings.Join(parts, "/"), nil
}

// pageURL is where what comes after v is.
func (c *feedClient) pageURL(v *feedView) string {
	q := url.Values{"since": {strconv.FormatInt(v.seq, 10)}, "limit": {strconv.Itoa(pageLimit)}}
	if v.epoch != "" {
		q.Set("epoch", v.epoch)
	}
	return c.pages + "?" + q.Encode()
}

// fetch gets the page at the URL into buf, or finds that the tagged one is still
// good (RFC 9110 section 15.4.5). A tag for another URL does not count.
func (c *feedClient) fetch(ctx context.Context, url string, last pageTag, buf *bytes.Buffer) (tag pageTag, unchanged bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, c.options.Timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return pageTag{}, false, err
	}
	req.Header.Set("Accept", "application/json")
	asked := last.url == url && last.etag != ""
	if asked {
		req.Header.Set("If-None-Match", last.etag)
	}
	resp, err := c.do(req)
	if err != nil {
		return pageTag{}, false, err
	}
	defer resp.Body.Close()
	switch {
	case resp.StatusCode == http.StatusNotModified && asked:
		return last, true, nil
	case resp.StatusCode == http.StatusNotFound:
		return pageTag{}, false, ErrFeedKeyset
	case resp.StatusCode != http.StatusOK:
		return pageTag{}, false, statusError(resp)
	}
	buf.Reset()
	if _, err := buf.ReadFrom(io.LimitReader(resp.Body, maxPage+1)); err != nil {
		return pageTag{}, false, err
	}
	if buf.Len() > maxPage {
		return pageTag{}, false, fmt.Errorf("%w: longer than %d bytes", ErrFeedPage, maxPage)
	}
	return pageTag{url: url, etag: resp.Header.Get("ETag")}, false, nil
}

// open begins a stream of what comes after v. Its answer is for checkStream.
func (c *feedClient) open(ctx context.Context, v *feedView) (*http.Response, error) {
	message, err := json.Marshal(struct {
		Keyset string `json:"keyset"`
		Epoch  string `json:"epoch,omitempty"`
		Since  int64  `json:"since,string"`
	}{c.keyset, v.epoch, v.seq})
	if err != nil {
		return nil, err
	}
	body := bytes.NewReader(appendEnvelope(nil, 0, message))
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.watch, body)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", connectJSON)
	req.Header.Set("Connect-Protocol-Version", "1")
	req.Header.Set("Connect-Accept-Encoding", "identity")
	// Whoever compresses the whole of a stream may hold its messages back.
	req.Header.Set("Accept-Encoding", "identity")
	return c.do(req)
}

// checkStream refuses what is not a stream. If its error is errStreamRefused,
// something on the way does not let streams through.
func checkStream(resp *http.Response) error {
	switch code := resp.StatusCode; {
	case code == http.StatusOK:
		if kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type")); kind != connectJSON {
			return fmt.Errorf("%w: the answer is none of the Connect protocol", errStreamRefused)
		}
		return nil
	case code == http.StatusUnauthorized, code == http.StatusForbidden, code == http.StatusTooManyRequests:
		return statusError(resp)
	case code < 500, code == http.StatusNotImplemented, code == http.StatusHTTPVersionNotSupported:
		return fmt.Errorf("%w: status %d", errStreamRefused, code)
	default:
		return statusError(resp)
	}
}

func statusError(resp *http.Response) error {
	switch code := resp.StatusCode; code {
	case http.StatusUnauthorized, http.StatusForbidden:
		return fmt.Errorf("%w: status %d", ErrFeedCredential, code)
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		return &retryLaterError{status: code, after: min(seconds(resp.Header.Get("Retry-After")), longestRetryAfter)}
	default:
		return fmt.Errorf("status %d", code)
	}
}

// do makes a request with the credential of the moment.
func (c *feedClient) do(req *http.Request) (*http.Response, error) {
	if c.options.Credential != nil {
		credential, err := c.options.Credential(req.Context())
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrFeedCredential, err)
		}
		credential = strings.TrimSpace(credential)
		if !fitForHeader(credential) {
			return nil, fmt.Errorf("%w: it is not one word of ASCII", ErrFeedCredential)
		}
		req.Header.Set("Authorization", "Bearer "+credential)
	}
	resp, err := c.client.Do(req)
	if e, ok := errors.AsType[*url.Error](err); ok {
		err = e.Err
	}
	return resp, err
}

func fitForHeader(credential string) bool {
	odd := func(c rune) bool { return c <= ' ' || c > '~' }
	return credential != "" && !strings.ContainsFunc(credential, odd)
}
