package vault

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"github.com/zonemint/zonemint/signer"
)

const (
	loginTimeout = 5 * time.Second
	// loginPause is how long a log-in that failed stands for the next ones that
	// requests ask for. It bounds the load on a server that refuses, and how
	// much later than the server signing comes back.
	loginPause = 500 * time.Millisecond
	// loginSpacing is the least time between log-ins for no other reason than
	// that a request was denied.
	loginSpacing = time.Minute

	firstRetry   = time.Second
	longestRetry = 30 * time.Second
	idle         = 24 * time.Hour
)

var errSameToken = fail(signer.Denied, "vault refuses the token, and where it comes from there is no other one yet")

// grant is a token as the server gave it.
type grant struct {
	token     string
	lease     time.Duration // 0 for a token that does not expire
	renewable bool
	own       bool // made for this process, which may revoke it
}

// held is a grant and when it came. Generations count from 1.
type held struct {
	grant
	generation uint64
	since      time.Time
	full       time.Duration // the lease when it was new
}

// session keeps a token alive. One goroutine, run, makes all log-ins and
// renewals, so that there is never more than one under way, however many
// requests find that the token is gone.
type session struct {
	client *client
	login  loginFunc
	agent  bool // somebody else adds the token
	now    func() time.Time
	log    *slog.Logger
	ns     string

	asks chan ask
	done chan struct{} // closed when run has ended

	mu    sync.Mutex
	held  held
	count Stats

	// Of run's goroutine.
	failed   error
	failedAt time.Time
	retry    time.Duration
}

// ask is the wish for a token newer than a generation.
type ask struct {
	than  uint64
	reply chan<- answer // takes one without blocking
}

type answer struct {
	held held
	err  error
}

func newSession(c *client, login loginFunc, o Options) *session {
	return &session{client: c, login: login, agent: o.Auth == "agent", now: o.Now, log: o.Logger, ns: o.AuthNamespace,
		asks: make(chan ask), done: make(chan struct{}), retry: firstRetry}
}

// token returns the token that is held, after a log-in if there is none yet.
func (s *session) token(ctx context.Context) (held, error) {
	if h := s.current(); h.generation > 0 || s.agent {
		return h, nil
	}
	return s.fresh(ctx, 0)
}

// fresh returns a token that is newer than the generation.
func (s *session) fresh(ctx context.Context, than uint64) (held, error) {
	reply := make(chan answer, 1)
	select {
	case s.asks <- ask{than, reply}:
	case <-s.done:
		return held{}, errClosed
	case <-ctx.Done():
		return held{}, ctx.Err()
	}
	select {
	case a := <-reply:
		return a.held, a.err
	case <-s.done:
		return held{}, errClosed
	case <-ctx.Done():
		return held{}, ctx.Err()
	}
}

// outlived says whether err, which a request with h came to, is worth a new
// token. A plain denial is, once in a while: old servers say no more of a dead
// token, and what a role may do is fixed when its token is made.
func (s *session) outlived(h held, err error) bool {
	refused, unknown := tokenRefused(err)
	return refused && !s.agent && (unknown || s.now().Sub(h.since) > loginSpacing)
}

func (s *session) current() held {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.held
}

func (s *session) stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.count
	if s.held.lease > 0 {
		st.TokenExpires = s.held.since.Add(s.held.lease)
	}
	return st
}

// run ends with ctx.
func (s *session) run(ctx context.Context) {
	defer close(s.done)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
			timer.Reset(s.tend(ctx))
		case a := <-s.asks:
			a.reply <- s.answer(ctx, a.than)
			timer.Reset(s.due())
		}
	}
}

func (s *session) answer(ctx context.Context, than uint64) answer {
	if h := s.current(); h.generation > than {
		return answer{held: h}
	}
	if s.failed != nil && s.now().Sub(s.failedAt) < loginPause {
		return answer{err: s.failed}
	}
	before := s.current()
	if err := s.enter(ctx); err != nil {
		return answer{err: err}
	}
	h := s.current()
	if before.generation > 0 && h.token == before.token {
		// Whoever puts tokens there is late. That stands for a moment too.
		s.failed, s.failedAt = errSameToken, s.now()
		return answer{err: errSameToken}
	}
	return answer{held: h}
}

// tend does what is due and returns when to look again.
func (s *session) tend(ctx context.Context) time.Duration {
	if s.agent {
		return idle
	}
	h := s.current()
	if h.generation > 0 && h.renewable {
		switch err := s.renew(ctx, h); {
		case err == nil:
			return s.due()
		case codeOf(err) == signer.Unavailable, codeOf(err) == signer.Throttled:
			return s.later() // it lives on for a third of its lease
		}
	}
	if s.enter(ctx) != nil {
		return s.later()
	}
	return s.due()
}

// due is how long the token needs nothing: two thirds of its lease, a little
// less so that replicas that were started together come one after the other.
func (s *session) due() time.Duration {
	h := s.current()
	switch {
	case h.generation == 0:
		return s.later()
	case h.lease == 0:
		return idle
	}
	part := time.Duration(float64(h.lease) * (0.60 + 0.06*rand.Float64())) //nolint:gosec // spreads load
	return max(h.since.Add(part).Sub(s.now()), time.Second)
}

// later is the pause before the next try, longer from time to time.
func (s *session) later() time.Duration {
	wait := s.retry
	s.retry = min(2*s.retry, longestRetry)
	return wait/2 + rand.N(wait/2) //nolint:gosec // spreads load
}

// enter logs in.
func (s *session) enter(ctx context.Context) error {
	within, cancel := context.WithTimeout(ctx, loginTimeout)
	defer cancel()
	began := s.now()
	g, err := s.login(within)
	if ctx.Err() != nil {
		return errClosed
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		s.count.LoginFailures++
		if s.failed == nil || codeOf(s.failed) != codeOf(err) {
			s.log.ErrorContext(ctx, "vault log-in failed", slog.String("error", err.Error()))
		}
		s.failed, s.failedAt = err, s.now()
		return err
	}
	s.count.Logins++
	s.failed, s.retry = nil, firstRetry
	s.held = held{grant: g, generation: s.held.generation + 1, since: began, full: g.lease}
	s.log.InfoContext(ctx, "logged in to vault", slog.Duration("lease", g.lease), slog.Bool("renewable", g.renewable))
	return nil
}

// renew prolongs the token's life. When that gives less than half of what it
// had, its greatest age is near: the next thing to do is then a log-in.
func (s *session) renew(ctx context.Context, h held) error {
	ctx, cancel := context.WithTimeout(ctx, loginTimeout)
	defer cancel()
	began := s.now()
	var said authAnswer
	err := s.client.do(ctx, request{op: "renew the vault token", method: http.MethodPost, path: "auth/token/renew-self",
		namespace: &s.ns, token: h.token, body: struct{}{}}, &said)
	if err == nil && said.Auth == nil {
		err = errors.New("the answer to a renewal has no lease")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		s.count.RenewalFailures++
		s.log.WarnContext(ctx, "vault token not renewed", slog.String("error", err.Error()))
		return err
	}
	s.count.Renewals++
	s.retry = firstRetry
	s.held.lease, s.held.since = said.Auth.lease(), began
	s.held.renewable = said.Auth.Renewable && 2*s.held.lease > s.held.full
	return nil
}

// giveBack revokes the token of this process. A token that is left over would
// count as a lease until it expires.
func (s *session) giveBack() {
	h := s.current()
	if !h.own {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	err := s.client.do(ctx, request{op: "revoke the vault token", method: http.MethodPost, path: "auth/token/revoke-self",
		namespace: &s.ns, token: h.token, body: struct{}{}}, nil)
	if err != nil {
		s.log.InfoContext(ctx, "vault token not revoked: it expires by itself", slog.String("error", err.Error()))
	}
}
