package bench

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"sync"
	"time"
)

// request is what a load consists of.
type request struct {
	method, url, token, body string
}

// figures are what a load comes to.
type figures struct {
	client    string
	perSecond float64
	p50, p99  time.Duration
}

// drive sends the request over and over on so many connections. It uses wrk if
// that is installed, which takes half of the processor that Go's client does and
// so leaves more to the server; a figure always says who was the client.
func (s *session) drive(ctx context.Context, r request, connections int) (figures, error) {
	if path, err := exec.LookPath("wrk"); err == nil {
		return s.wrk(ctx, path, r, connections)
	}
	return s.goClient(ctx, r, connections)
}

func (s *session) wrk(ctx context.Context, path string, r request, connections int) (figures, error) {
	// The token goes into a file and not onto the command line.
	script := filepath.Join(s.dir, "wrk.lua")
	lua := fmt.Sprintf("wrk.method = %q\nwrk.body = %q\nwrk.headers[\"Content-Type\"] = \"application/json\"\n", r.method, r.body)
	if r.token != "" {
		lua += fmt.Sprintf("wrk.headers[\"Authorization\"] = %q\n", "Bearer "+r.token)
	}
	if err := os.WriteFile(script, []byte(lua), 0o600); err != nil {
		return figures{}, err
	}
	out, err := exec.CommandContext(ctx, path, "-t", strconv.Itoa(min(2, connections)), "-c", strconv.Itoa(connections),
		"-d", strconv.Itoa(int(s.Duration.Seconds()))+"s", "--latency", "--timeout", "30s", "-s", script, r.url).CombinedOutput()
	if err != nil {
		return figures{}, fmt.Errorf("wrk: %w: %s", err, out)
	}
	return parseWrk(out)
}

var (
	wrkRate   = regexp.MustCompile(`Requests/sec:\s+([\d.]+)`)
	wrkP50    = regexp.MustCompile(`(?m)^\s+50%\s+(\S+)$`)
	wrkP99    = regexp.MustCompile(`(?m)^\s+99%\s+(\S+)$`)
	wrkErrors = regexp.MustCompile(`Non-2xx or 3xx responses: \d+|Socket errors: .*`)
)

func parseWrk(out []byte) (figures, error) {
	if bad := wrkErrors.Find(out); bad != nil {
		return figures{}, fmt.Errorf("the load met errors: %s", bad)
	}
	rate, p50, p99 := wrkRate.FindSubmatch(out), wrkP50.FindSubmatch(out), wrkP99.FindSubmatch(out)
	if rate == nil || p50 == nil || p99 == nil {
		return figures{}, fmt.Errorf("wrk printed something else: %s", out)
	}
	f := figures{client: "wrk"}
	var err error
	if f.perSecond, err = strconv.ParseFloat(string(rate[1]), 64); err != nil {
		return f, err
	}
	if f.p50, err = time.ParseDuration(string(p50[1])); err != nil {
		return f, err
	}
	f.p99, err = time.ParseDuration(string(p99[1]))
	return f, err
}

func (s *session) goClient(ctx context.Context, r request, connections int) (figures, error) {
	transport := &http.Transport{MaxIdleConnsPerHost: connections, DisableCompression: true}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, Timeout: 30 * time.Second}
	var mu sync.Mutex
	var all []time.Duration
	var failed error
	var wg sync.WaitGroup
	start := time.Now()
	for range connections {
		wg.Go(func() {
			took, err := s.worker(ctx, client, r, start)
			mu.Lock()
			defer mu.Unlock()
			all = append(all, took...)
			if failed == nil {
				failed = err
			}
		})
	}
	wg.Wait()
	if failed != nil || len(all) == 0 {
		return figures{}, fmt.Errorf("the load met an error: %w", failed)
	}
	elapsed := time.Since(start)
	slices.Sort(all)
	return figures{
		client: "Go", perSecond: float64(len(all)) / elapsed.Seconds(),
		p50: all[len(all)/2], p99: all[len(all)*99/100],
	}, nil
}

func (s *session) worker(ctx context.Context, client *http.Client, r request, start time.Time) ([]time.Duration, error) {
	var took []time.Duration
	for time.Since(start) < s.Duration && ctx.Err() == nil {
		sent := time.Now()
		if err := once(ctx, client, r); err != nil {
			return took, err
		}
		took = append(took, time.Since(sent))
	}
	return took, ctx.Err()
}

func once(ctx context.Context, client *http.Client, r request) error {
	req, err := http.NewRequestWithContext(ctx, r.method, r.url, bytes.NewReader([]byte(r.body)))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	if r.token != "" {
		req.Header.Set("Authorization", "Bearer "+r.token)
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("status %s", resp.Status)
	}
	return nil
}
