package integration

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/zonemint/zonemint/token"
)

// audience is the verifiers of one keyset.
type audience struct {
	keyset   string
	checkers []*checker
	machine  *machine
}

// checker is one verifier.
type checker struct {
	name     string
	verifier *token.Verifier[token.ZoneClaims]
	pinned   *member // the only one that it knows; nil: whoever the balancer gives it

	mu       sync.Mutex
	accepted int
	excused  int // tokens that it could not know, because its replica was cut off
	delayed  int // tokens that it refused when the machine had kept everybody waiting
}

// strictVerifiers is how many of them a keyset has.
const strictVerifiers = 3

// gather returns the verifiers of a keyset: strict ones, [token.RemoteKeys] behind
// the balancer, and [token.RemoteKeys] of each replica.
func (f *fleet) gather(t *testing.T, keyset string) *audience {
	t.Helper()
	a := &audience{keyset: keyset, machine: f.machine}
	path := "/keysets/" + keyset + "/jwks.json"
	for i := range strictVerifiers {
		keys := &strictKeys{url: "http://127.0.0.1" + path, client: &http.Client{Transport: f.balancer}}
		a.add(t, fmt.Sprintf("strict verifier %d", i), keys, nil)
	}
	a.add(t, "RemoteKeys behind the balancer", remoteKeys(t, "http://127.0.0.1"+path, f.balancer), nil)
	for _, r := range f.members {
		a.add(t, "RemoteKeys of "+r.name, remoteKeys(t, "http://"+r.public+path, nil), r)
	}
	return a
}

func (a *audience) add(t *testing.T, name string, keys token.KeySource, pinned *member) {
	t.Helper()
	v, err := token.NewVerifier[token.ZoneClaims](keys, token.Options{})
	if err != nil {
		t.Fatal(err)
	}
	a.checkers = append(a.checkers, &checker{name: a.keyset + ", " + name, verifier: v, pinned: pinned})
}

// remoteKeys returns keys that are kept up to date until the test ends.
func remoteKeys(t *testing.T, url string, through http.RoundTripper) *token.RemoteKeys {
	t.Helper()
	// The sets of a fleet are good for seconds, the usual least time between two
	// fetches is longer.
	keys, err := token.NewRemoteKeys(url, token.RemoteOptions{Transport: through, MinInterval: 200 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = keys.Run(ctx) // it ends when it is told to
	}()
	t.Cleanup(func() { cancel(); <-ended })
	return keys
}

// strictKeys keeps a JWK set for exactly as long as the answer said that it may,
// and not a moment less: it asks for no newer one because a key is missing. It is
// the verifier that rotations have to wait for.
type strictKeys struct {
	url    string
	client *http.Client

	mu    sync.Mutex
	set   *token.KeySet
	until time.Time
}

// Key implements [token.KeySource].
func (k *strictKeys) Key(ctx context.Context, id string) (token.Key, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.set == nil || !time.Now().Before(k.until) {
		if err := k.fetch(ctx); err != nil {
			return token.Key{}, err
		}
	}
	return k.set.Key(ctx, id)
}

func (k *strictKeys) fetch(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for {
		asked := time.Now()
		set, age, err := fetchSet(ctx, k.client, k.url)
		if err != nil {
			return err
		}
		// Counted from the answer's arrival, though RFC 9111 would have it from when
		// the request was made: but if this machine was busy in between, no more is
		// added than clocks may be wrong by.
		arrived := time.Now()
		if latest := asked.Add(fleetSkew / 2); arrived.After(latest) {
			arrived = latest
		}
		k.set, k.until = set, arrived.Add(age)
		if age > 0 || ctx.Err() != nil {
			return nil
		}
		time.Sleep(20 * time.Millisecond) // whoever says 0 does not know what others know
	}
}

// fetchSet fetches a JWK set, and says for how long it may be used.
func fetchSet(ctx context.Context, c *http.Client, url string) (*token.KeySet, time.Duration, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, 0, err
	}
	resp, err := c.Do(req)
	if err != nil {
		return nil, 0, err
	}
	defer shut(resp.Body)
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, 0, err
	}
	age := maxAge(resp.Header)
	if resp.StatusCode != http.StatusOK || age < 0 {
		return nil, 0, fmt.Errorf("status %d, %q", resp.StatusCode, resp.Header.Get("Cache-Control"))
	}
	set, err := token.ParseKeySet(body)
	return set, age, err
}

// excuse is how long after its replica was cut off a verifier must still know
// everything: the lease has not run out, and the others wait for it.
const excuse = fleetLease / 2

// verify has every verifier look at a token, all of which are to accept it. It
// returns what is wrong.
func (a *audience) verify(ctx context.Context, k issued) (wrong []error) {
	for _, c := range a.checkers {
		from := time.Now()
		_, err := c.verifier.Verify(ctx, k.token, token.RequireZone(k.zone))
		c.mu.Lock()
		switch {
		case err == nil:
			c.accepted++
		case token.Reason(err) == "unknown_key" && a.machine.longest(from.Add(-2*fleetLease), time.Now()) > fleetLease/3:
			// A replica may have lost its lease for a moment, and RemoteKeys not
			// have asked in time.
			c.delayed++
		case token.Reason(err) == "unknown_key" && c.pinned != nil && c.pinned.behind(from, time.Now(), excuse):
			// It asks a replica that is cut off from the database, and nobody else:
			// neither of the two can know a key that was published meanwhile. That
			// the key is unknown is all that may go wrong.
			c.excused++
		default:
			wrong = append(wrong, fmt.Errorf("%s refuses the token %s: %w", c.name, k.jti, err))
		}
		c.mu.Unlock()
	}
	return wrong
}

// counts adds up what the verifiers did.
func (a *audience) counts() (accepted, excused, delayed int) {
	for _, c := range a.checkers {
		c.mu.Lock()
		accepted, excused, delayed = accepted+c.accepted, excused+c.excused, delayed+c.delayed
		c.mu.Unlock()
	}
	return accepted, excused, delayed
}
