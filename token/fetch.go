package token

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

const (
	maxRedirects = 3
	// How long an HTTP/2 connection may be silent before it is asked for a sign of
	// life, and how long it has for that.
	pingAfter   = 15 * time.Second
	pingTimeout = 5 * time.Second
)

// fetched is the outcome of a successful fetch.
type fetched struct {
	set    *KeySet
	etag   string
	at     time.Time     // when the request was made
	maxAge time.Duration // for how long it is fresh; MaxInterval if not said
}

// fetcher makes the requests for a JWK set.
type fetcher struct {
	url     string
	client  *http.Client
	options RemoteOptions
}

// FetchKeySet fetches a JWK set once. Of the options those about the request count:
// Transport, AllowPlainHTTP and Timeout.
func FetchKeySet(ctx context.Context, url string, o RemoteOptions) (*KeySet, error) {
	if o.Transport == nil {
		o.Transport = http.DefaultTransport // one request needs no connections of its own
	}
	o.setDefaults()
	f, err := newFetcher(url, o)
	if err != nil {
		return nil, err
	}
	got, err := f.fetch(ctx, nil)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrKeysUnavailable, err)
	}
	return got.set, nil
}

func newFetcher(rawURL string, o RemoteOptions) (fetcher, error) {
	if err := checkURL(rawURL, o.AllowPlainHTTP); err != nil {
		return fetcher{}, fmt.Errorf("remote keys: %w", err)
	}
	client := &http.Client{Transport: o.Transport, CheckRedirect: sameOrigin}
	return fetcher{url: rawURL, client: client, options: o}, nil
}

// ownTransport returns a copy of http.DefaultTransport that leaves an HTTP/2
// connection whose other end is gone. Without pings one to a machine that died without
// a word is used until TCP gives up, which takes a quarter of an hour.
func ownTransport() http.RoundTripper {
	t, ok := http.DefaultTransport.(*http.Transport)
	if !ok {
		return http.DefaultTransport
	}
	t = t.Clone()
	if t.HTTP2 == nil {
		t.HTTP2 = &http.HTTP2Config{}
	}
	t.HTTP2.SendPingTimeout = cmp.Or(t.HTTP2.SendPingTimeout, pingAfter)
	t.HTTP2.PingTimeout = cmp.Or(t.HTTP2.PingTimeout, pingTimeout)
	return t
}

// checkURL refuses what is not safe to follow. Its error does not hold the URL.
func checkURL(rawURL string, allowPlainHTTP bool) error {
	u, err := url.Parse(rawURL)
	switch {
	case err != nil || u.Host == "":
		return errors.New("not an absolute URL")
	case u.User != nil || u.Fragment != "":
		return errors.New("URL has a user or a fragment")
	case u.Scheme == "https":
	case u.Scheme == "http" && (allowPlainHTTP || isLoopback(u.Hostname())):
	default:
		return fmt.Errorf("URL must be https, not %.10q", u.Scheme)
	}
	return nil
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// sameOrigin follows redirects only to where the first request went: keys are as
// trustworthy as the name that was configured.
func sameOrigin(req *http.Request, via []*http.Request) error {
	if first := via[0].URL; req.URL.Scheme != first.Scheme || req.URL.Host != first.Host {
		return errors.New("redirect to another host")
	}
	if len(via) > maxRedirects {
		return errors.New("too many redirects")
	}
	return nil
}

// fetch gets the set, or finds that the last one is still good (RFC 9110 section
// 15.4.5). No error holds the URL.
func (f fetcher) fetch(ctx context.Context, last *fetched) (*fetched, error) {
	ctx, cancel := context.WithTimeout(ctx, f.options.Timeout)
	defer cancel()
	at := f.options.Now()
	resp, err := f.get(ctx, last)
	if err != nil {
		return nil, fmt.Errorf("fetch keys: %w", err)
	}
	defer resp.Body.Close()
	got := &fetched{at: at, etag: resp.Header.Get("ETag"), maxAge: freshFor(resp.Header, f.options.MaxInterval)}
	switch {
	case resp.StatusCode == http.StatusOK:
		got.set, err = readKeySet(resp.Body)
	case resp.StatusCode == http.StatusNotModified && last != nil && last.etag != "":
		got.set = last.set
	default:
		err = fmt.Errorf("status %d", resp.StatusCode)
	}
	if err != nil {
		return nil, fmt.Errorf("fetch keys: %w", err)
	}
	return got, nil
}

func (f fetcher) get(ctx context.Context, last *fetched) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, f.url, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/jwk-set+json, application/json")
	if last != nil && last.etag != "" {
		req.Header.Set("If-None-Match", last.etag)
	}
	resp, err := f.client.Do(req)
	if e, ok := errors.AsType[*url.Error](err); ok {
		err = e.Err
	}
	return resp, err
}

func readKeySet(body io.Reader) (*KeySet, error) {
	// One byte more than allowed, so that ParseKeySet sees what is too long.
	data, err := io.ReadAll(io.LimitReader(body, MaxKeySetSize+1))
	if err != nil {
		return nil, err
	}
	return ParseKeySet(data)
}

// freshFor returns for how long a response is fresh (RFC 9111 section 4.2): its
// max-age less its Age. It is 0 where caching is forbidden and where max-age makes
// no sense, and unsaid where there is none.
func freshFor(h http.Header, unsaid time.Duration) time.Duration {
	maxAge, said := unsaid, false
	for directive := range strings.SplitSeq(strings.Join(h.Values("Cache-Control"), ","), ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(directive), "=")
		switch strings.ToLower(name) {
		case "no-store", "no-cache":
			return 0
		case "max-age":
			if d := seconds(strings.Trim(value, `"`)); !said || d < maxAge {
				maxAge, said = d, true
			}
		}
	}
	if said {
		maxAge = max(0, maxAge-seconds(h.Get("Age")))
	}
	return maxAge
}

// seconds reads delta-seconds (RFC 9111 section 1.2.2): too many are as many as
// can be counted, and what is not a number is none.
func seconds(s string) time.Duration {
	n, err := strconv.ParseUint(s, 10, 32)
	if errors.Is(err, strconv.ErrRange) {
		n = math.MaxUint32
	} else if err != nil {
		return 0
	}
	return time.Duration(n) * time.Second
}
