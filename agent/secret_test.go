package agent_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/zonemint/zonemint/agent"
	"github.com/zonemint/zonemint/kubernetes"
)

// cluster stands for the Secrets of one.
type cluster struct {
	mu      sync.Mutex
	secrets map[string]kubernetes.Secret
	version int
	err     error  // of every call
	before  func() // the next write
}

func (c *cluster) Secret(_ context.Context, namespace, name string) (kubernetes.Secret, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return kubernetes.Secret{}, c.err
	}
	s, ok := c.secrets[namespace+"/"+name]
	if !ok {
		return s, kubernetes.ErrNotFound
	}
	s.Data = maps.Clone(s.Data)
	return s, nil
}

func (c *cluster) Create(_ context.Context, s kubernetes.Secret) (kubernetes.Secret, error) {
	return c.write(s, func(was kubernetes.Secret, there bool) error {
		if there {
			return kubernetes.ErrExists
		}
		return nil
	})
}

func (c *cluster) Update(_ context.Context, s kubernetes.Secret) (kubernetes.Secret, error) {
	return c.write(s, func(was kubernetes.Secret, there bool) error {
		if !there || was.ResourceVersion != s.ResourceVersion {
			return kubernetes.ErrConflict
		}
		return nil
	})
}

func (c *cluster) write(s kubernetes.Secret, refuse func(was kubernetes.Secret, there bool) error) (kubernetes.Secret, error) {
	if f := c.before; f != nil {
		c.before = nil
		f()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return kubernetes.Secret{}, c.err
	}
	key := s.Namespace + "/" + s.Name
	was, there := c.secrets[key]
	if err := refuse(was, there); err != nil {
		return kubernetes.Secret{}, err
	}
	c.keep(s)
	return c.secrets[key], nil
}

func (c *cluster) put(s kubernetes.Secret) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.keep(s)
}

// has returns the Secret mesh/cp-token.
func (c *cluster) has() kubernetes.Secret {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.secrets["mesh/cp-token"]
}

func (c *cluster) fails(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.err = err
}

func (c *cluster) keep(s kubernetes.Secret) {
	c.version++
	s.ResourceVersion = fmt.Sprint(c.version)
	c.secrets[s.Namespace+"/"+s.Name] = s
}

func newCluster() (*cluster, *agent.Secret) {
	c := &cluster{secrets: map[string]kubernetes.Secret{}}
	return c, &agent.Secret{Secrets: c, Namespace: "mesh", Name: "cp-token", Key: "token"}
}

func TestASecretHasTheTokenAndItsIdentifiers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c, sink := newCluster()
		w.o.Sink = sink
		_, stop := w.start(t)
		defer stop()
		synctest.Wait()
		s := c.has()
		if id, _, err := expiryOf(string(s.Data["token"])); err != nil || id != "jti-1" {
			t.Errorf("the token is %s, %v", id, err)
		}
		if s.Type != "Opaque" || s.Labels["app.kubernetes.io/managed-by"] != "zonemint" || s.Annotations["zonemint/jti"] != "jti-1" ||
			s.Annotations["zonemint/kid"] != "zone-1" || s.Annotations["zonemint/expires-at"] != time.Now().Add(life).UTC().Format(time.RFC3339) {
			t.Errorf("the Secret is %q, %v, %v", s.Type, s.Labels, s.Annotations)
		}
		for k, v := range s.Annotations {
			if strings.Contains(v, ".ey") || len(v) > 40 {
				t.Errorf("the annotation %s may be a token", k)
			}
		}
		s.Data = map[string][]byte{"token": s.Data["token"], "other": []byte("kept")}
		s.Labels = map[string]string{"app.kubernetes.io/managed-by": "zonemint", "app.kubernetes.io/component": "agent", "mine": "kept"}
		c.put(s)
		time.Sleep(life)
		if s := c.has(); s.Annotations["zonemint/jti"] != "jti-2" || string(s.Data["other"]) != "kept" || s.Labels["mine"] != "kept" {
			t.Errorf("after a renewal the Secret is %+v", s)
		}
	})
}

func TestASecretOfSomebodyElseIsLeftAlone(t *testing.T) {
	for name, labels := range map[string]map[string]string{
		"no labels":            nil,
		"another tool":         {"app.kubernetes.io/managed-by": "Helm"},
		"another part of ours": {"app.kubernetes.io/managed-by": "zonemint"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			c, sink := newCluster()
			w.o.Sink = sink
			theirs := kubernetes.Secret{Namespace: "mesh", Name: "cp-token", Labels: labels, Data: map[string][]byte{"value": []byte("theirs")}}
			c.put(theirs)
			if _, err := agent.New(w.o).Once(t.Context()); !errors.Is(err, agent.ErrForeign) || w.server.count() > 0 {
				t.Errorf("got %v, %d tokens were issued", err, w.server.count())
			}
			if err := sink.Write(t.Context(), agent.Token{Raw: "a.b.c"}); !errors.Is(err, agent.ErrForeign) {
				t.Error("written:", err)
			}
			if err := sink.Remove(t.Context()); !errors.Is(err, agent.ErrForeign) {
				t.Error("removed:", err)
			}
			sink.Adopt = true
			if _, err := agent.New(w.o).Once(t.Context()); err != nil {
				t.Error("adopted:", err)
			}
			if s := c.has(); string(s.Data["value"]) != "theirs" || s.Data["token"] == nil {
				t.Errorf("the Secret is %+v", s)
			}
			sink.Adopt = false
			if _, err := sink.Read(t.Context()); err != nil {
				t.Error("after it was adopted:", err)
			}
		})
	}
}

// TestTwoAgentsOfOneSecretAgree has another agent write between reading and
// writing. Its token is as good, so nothing more is fetched.
func TestTwoAgentsOfOneSecretAgree(t *testing.T) {
	for name, there := range map[string]bool{"it is new": false, "it is there": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				c, sink := newCluster()
				w.o.Sink = sink
				if there {
					must(t, sink.Write(t.Context(), agent.Token{Raw: zoneToken("old", time.Now().Add(-2*life), life, "cp")}))
				}
				c.before = func() {
					must(t, sink.Write(t.Context(), agent.Token{Raw: zoneToken("other", time.Now(), life, "cp")}))
				}
				got, err := agent.New(w.o).Once(t.Context())
				if err != nil || got.ID != "other" || w.server.count() != 1 {
					t.Errorf("got %s, %v; %d were issued", got, err, w.server.count())
				}
			})
		})
	}
}

func TestAClusterThatIsAwayDelaysAndLosesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c, sink := newCluster()
		w.o.Sink = sink
		a, stop := w.start(t)
		defer stop()
		time.Sleep(life / 2)
		c.fails(kubernetes.ErrUnavailable)
		time.Sleep(life/3 + life/12)
		if a.Ready() != nil || w.server.count() != 1 {
			t.Errorf("ready: %v, %d were issued", a.Ready(), w.server.count())
		}
		c.fails(nil)
		time.Sleep(time.Minute)
		if got := c.has().Annotations["zonemint/jti"]; got != "jti-2" {
			t.Error("the Secret has", got)
		}
	})
}

func TestRemovingLeavesTheSecret(t *testing.T) {
	c, sink := newCluster()
	must(t, sink.Remove(t.Context()))
	must(t, sink.Write(t.Context(), agent.Token{Raw: "a.b.c", ID: "i"}))
	must(t, sink.Remove(t.Context()))
	must(t, sink.Remove(t.Context()))
	s := c.has()
	if len(s.Data) > 0 || len(s.Annotations) > 0 || s.Labels["app.kubernetes.io/managed-by"] != "zonemint" {
		t.Errorf("the Secret is %+v", s)
	}
}

func TestTheClientOfAClusterHasSecrets(t *testing.T) {
	var _ agent.Secrets = (*kubernetes.Client)(nil)
}
