package integration

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// httpPost is what is sent over and over.
type httpPost struct {
	url, body   string
	header, key string // a header with a credential
}

// tokenRequest asks for a zone token.
func (s *server) tokenRequest(credential string) httpPost {
	return httpPost{
		url:  "http://" + s.public + "/zonemint.v1.TokenService/IssueZoneToken",
		body: `{"zone":"west","validFor":"3600s"}`, header: "Authorization", key: "Bearer " + credential,
	}
}

// drive sends the request from all askers for a turn and returns how many were
// answered a second. It uses wrk if that is here, which leaves more of the
// processor to what is measured.
func (r httpPost) drive(t *testing.T) float64 {
	t.Helper()
	if program, err := exec.LookPath("wrk"); err == nil {
		return r.wrk(t, program)
	}
	return r.goClient(t)
}

func (r httpPost) wrk(t *testing.T, program string) float64 {
	t.Helper()
	script := filepath.Join(t.TempDir(), "wrk.lua")
	lua := fmt.Sprintf("wrk.method = 'POST'\nwrk.body = %q\nwrk.headers['Content-Type'] = 'application/json'\nwrk.headers[%q] = %q\n", r.body, r.header, r.key)
	if err := os.WriteFile(script, []byte(lua), 0o600); err != nil {
		t.Fatal(err)
	}
	said := run(t, program, "-t1", "-c", strconv.Itoa(askers), "-d", turn.String(), "-s", script, r.url).must(t)
	if bad := regexp.MustCompile(`Non-2xx or 3xx responses: \d+|Socket errors: .*`).FindString(said); bad != "" {
		t.Fatalf("%s: %s", r.url, bad)
	}
	rate := regexp.MustCompile(`Requests/sec:\s+([\d.]+)`).FindStringSubmatch(said)
	if rate == nil {
		t.Fatalf("wrk says something else: %s", said)
	}
	n, err := strconv.ParseFloat(rate[1], 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func (r httpPost) goClient(t *testing.T) float64 {
	t.Helper()
	transport := &http.Transport{MaxIdleConnsPerHost: askers, DisableCompression: true}
	defer transport.CloseIdleConnections()
	c := &http.Client{Transport: transport, Timeout: 10 * time.Second}
	return rateOf(t, func() error { return r.once(c) })
}

func (r httpPost) once(c *http.Client) error {
	req, err := http.NewRequest(http.MethodPost, r.url, strings.NewReader(r.body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set(r.header, r.key)
	resp, err := c.Do(req)
	if err != nil {
		return err
	}
	defer shut(resp.Body)
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", r.url, resp.Status)
	}
	return nil
}

// rateOf has all askers do something for a turn, and returns how often they did
// it a second.
func rateOf(t *testing.T, do func() error) float64 {
	t.Helper()
	var done atomic.Int64
	var all sync.WaitGroup
	start := time.Now()
	for range askers {
		all.Go(func() {
			for time.Since(start) < turn {
				if err := do(); err != nil {
					t.Error(err)
					return
				}
				done.Add(1)
			}
		})
	}
	all.Wait()
	return float64(done.Load()) / time.Since(start).Seconds()
}
