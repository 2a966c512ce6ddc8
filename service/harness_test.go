package service_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/zonemint/zonemint/backends/local"
	"github.com/zonemint/zonemint/instancekey"
	pb "github.com/zonemint/zonemint/proto/zonemint/v1"
	v1 "github.com/zonemint/zonemint/proto/zonemint/v1/zonemintv1connect"
	"github.com/zonemint/zonemint/service"
	"github.com/zonemint/zonemint/service/caller"
	"github.com/zonemint/zonemint/signer"
	"github.com/zonemint/zonemint/store"
	"github.com/zonemint/zonemint/store/sqlite"
)

// world is a database and what replicas share: the instance key, the backends
// and a log, in which no secret may appear.
type world struct {
	db       *store.DB
	engine   *engine
	dbClock  *clock
	key      *instancekey.Key
	backends map[string]signer.Backend
	log      *logBuffer
	admin    string // an API token without bounds
	file     string // of the database
}

func newWorld(t testing.TB) *world {
	t.Helper()
	key := must(instancekey.Generate())
	w := &world{key: key, log: &logBuffer{}, dbClock: &clock{}, file: filepath.Join(t.TempDir(), "zonemint.db")}
	raw := must(sqlite.Open(t.Context(), w.file, sqlite.Options{Now: w.dbClock.now}))
	if _, err := raw.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.engine = &engine{Engine: raw}
	w.db = must(store.Open(t.Context(), w.engine, key.MAC()))
	backend := local.New(key.AEAD(), local.Options{Logger: w.logger()})
	w.backends = map[string]signer.Backend{"local": backend}
	w.admin = w.apiToken(t, store.APIToken{Name: "admin", Roles: []string{"admin"}})
	t.Cleanup(func() {
		w.engine.reconnect()
		if err := errors.Join(w.db.Close(), backend.Close()); err != nil {
			t.Error(err)
		}
		w.log.check(t)
	})
	return w
}

func (w *world) logger() *slog.Logger {
	return slog.New(slog.NewJSONHandler(w.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// apiToken makes an API token that is valid for an hour.
func (w *world) apiToken(t testing.TB, token store.APIToken) string {
	t.Helper()
	text, _, err := caller.Create(t.Context(), w.db, token, time.Hour, store.Actor{Name: "cli/test"})
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func (w *world) config() service.Config {
	return service.Config{
		Store: w.db, Backends: w.backends, Log: w.logger(), Name: "replica-1", Version: "test",
		Kuma: service.KumaIdentity{Version: "2.14.3"},
	}
}

// zoneKeyset is the default keyset, with keys that are cheap to make.
func zoneKeyset() *pb.Keyset {
	return &pb.Keyset{Name: "zone", Profile: pb.Profile_PROFILE_ZONE, Algorithm: "ES256"}
}

// server is a running replica behind real sockets.
type server struct {
	*world
	*service.Service
	url    string
	client *http.Client // speaks HTTP/2 without TLS
}

// start runs a replica until the end of the test.
func (w *world) start(t testing.TB, cfg service.Config, keysets ...*pb.Keyset) *server {
	t.Helper()
	s := &server{world: w, Service: must(service.New(t.Context(), cfg))}
	late := false
	for _, ks := range keysets {
		err := s.EnsureKeyset(t.Context(), ks)
		if late = late || heldUp(err); err != nil && !heldUp(err) {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	s.listen(t)
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	eventually(t, "the clock is known", func() bool { return s.gauge(t, "zonemint_clock_uncertainty_seconds") < 0.9 })
	if late { // heartbeats finish it
		s.settles(t)
		eventually(t, "the ring is loaded", func() bool {
			loaded := fmt.Sprintf("\nzonemint_ring_generation %d\n", must(w.db.LoadRing(t.Context())).Generation)
			return strings.Contains(s.private("/metrics").Body.String(), loaded)
		})
	}
	return s
}

// heldUp says whether a replica refused because this machine has stood still for
// longer than its lease, which is short in many tests. The next heartbeat mends that.
func heldUp(err error) bool {
	return err != nil && strings.Contains(err.Error(), "lost touch with the database")
}

func (s *server) listen(t testing.TB) {
	t.Helper()
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	srv := httptest.NewUnstartedServer(s.Handler())
	srv.Config.Protocols = &protocols
	srv.Config.ErrorLog = slog.NewLogLogger(s.logger().Handler(), slog.LevelError)
	srv.Start()
	var h2c http.Protocols
	h2c.SetUnencryptedHTTP2(true)
	transport := &http.Transport{Protocols: &h2c}
	s.url, s.client = srv.URL, &http.Client{Transport: transport}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		srv.Close()
	})
}

// newTestServer is a replica of its own with the keyset zone.
func newTestServer(t testing.TB) *server {
	t.Helper()
	w := newWorld(t)
	return w.start(t, w.config(), zoneKeyset())
}

// wire is a client over one of the protocols.
type wire struct {
	name        string
	tokens      v1.TokenServiceClient
	keys        v1.KeyServiceClient
	revocations v1.RevocationServiceClient
	audit       v1.AuditServiceClient
	callers     v1.CallerServiceClient
	legacy      v1.LegacyKeyServiceClient
}

// bearer adds an API token to requests.
type bearer string

func (b bearer) set(h http.Header) {
	if b != "" {
		h.Set("Authorization", "Bearer "+string(b))
	}
}

func (b bearer) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		b.set(req.Header())
		return next(ctx, req)
	}
}

func (b bearer) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return func(ctx context.Context, spec connect.Spec) connect.StreamingClientConn {
		conn := next(ctx, spec)
		b.set(conn.RequestHeader())
		return conn
	}
}

func (b bearer) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return next
}

func (s *server) wire(name, token string, opts ...connect.ClientOption) wire {
	opts = append(opts, connect.WithInterceptors(bearer(token)))
	return wire{
		name, v1.NewTokenServiceClient(s.client, s.url, opts...), v1.NewKeyServiceClient(s.client, s.url, opts...),
		v1.NewRevocationServiceClient(s.client, s.url, opts...), v1.NewAuditServiceClient(s.client, s.url, opts...),
		v1.NewCallerServiceClient(s.client, s.url, opts...), v1.NewLegacyKeyServiceClient(s.client, s.url, opts...),
	}
}

// as is a client for tests that are not about protocols.
func (s *server) as(token string) wire { return s.wire("connect", token) }

// wires are clients over every protocol. HTTP/1.1 carries one of them.
func (s *server) wires(token string) []wire {
	over1 := &server{world: s.world, url: s.url, client: http.DefaultClient}
	return []wire{
		s.wire("connect", token), s.wire("connect+json", token, connect.WithProtoJSON()),
		s.wire("grpc", token, connect.WithGRPC()), s.wire("grpc-web", token, connect.WithGRPCWeb()),
		over1.wire("connect over HTTP/1", token),
	}
}

// issue issues a zone token for an hour.
func (s *server) issue(t testing.TB, token string) (*pb.IssueZoneTokenResponse, error) {
	t.Helper()
	return s.as(token).tokens.IssueZoneToken(t.Context(), &pb.IssueZoneTokenRequest{Zone: "west", ValidFor: hour()})
}

func hour() *durationpb.Duration { return durationpb.New(time.Hour) }

// wantCode checks the code of an error that came over the wire.
func wantCode(t testing.TB, err error, want connect.Code) {
	t.Helper()
	if err == nil || connect.CodeOf(err) != want {
		t.Errorf("%v, want %s", err, want)
	}
}

// canary is the text of causes. It must not get out.
const canary = "canary-7d1f"

// engine is a database that can be cut off.
type engine struct {
	store.Engine
	fail   atomic.Pointer[error] // what every call fails with
	ledger atomic.Pointer[error] // what AppendLedger fails with
	beats  atomic.Pointer[error] // what Heartbeat fails with
	views  atomic.Pointer[error] // what View fails with
	budget atomic.Int64          // how many more changes succeed; 0 for any number
	beat   sync.RWMutex          // held for reading by those under way
}

// cut makes every call fail from now on.
func (e *engine) cut() {
	err := fmt.Errorf("%w: %s", store.ErrUnavailable, canary)
	e.fail.Store(&err)
}

// muffle makes heartbeats fail from now on, and nothing else: a replica learns no
// more about its clock and its lease. It waits for those under way.
func (e *engine) muffle() {
	err := fmt.Errorf("%w: %s", store.ErrUnavailable, canary)
	e.beats.Store(&err)
	e.beat.Lock()
	defer e.beat.Unlock()
}

// blind makes everything fail that only reads, such as loading the ring, and
// heartbeats succeed.
func (e *engine) blind() {
	err := fmt.Errorf("%w: %s", store.ErrUnavailable, canary)
	e.views.Store(&err)
}

// reconnect makes calls succeed again.
func (e *engine) reconnect() {
	e.fail.Store(nil)
	e.ledger.Store(nil)
	e.beats.Store(nil)
	e.views.Store(nil)
	e.budget.Store(0)
}

func (e *engine) broken(also *atomic.Pointer[error]) error {
	for _, p := range []*atomic.Pointer[error]{&e.fail, also} {
		if err := p.Load(); err != nil {
			return *err
		}
	}
	return nil
}

func (e *engine) Update(ctx context.Context, fn func(store.Tx) error) error {
	if e.budget.Load() > 0 && e.budget.Add(-1) == 0 {
		e.cut()
	}
	if err := e.broken(&e.fail); err != nil {
		return err
	}
	return e.Engine.Update(ctx, fn)
}

func (e *engine) View(ctx context.Context, fn func(store.Tx) error) error {
	if err := e.broken(&e.views); err != nil {
		return err
	}
	return e.Engine.View(ctx, fn)
}

func (e *engine) AppendLedger(ctx context.Context, b store.LedgerBatch) (store.Refused, error) {
	if err := e.broken(&e.ledger); err != nil {
		return store.Refused{}, err
	}
	return e.Engine.AppendLedger(ctx, b)
}

func (e *engine) Heartbeat(ctx context.Context, r store.Replica, ttl time.Duration) (store.Beat, error) {
	e.beat.RLock()
	defer e.beat.RUnlock()
	if err := e.broken(&e.beats); err != nil {
		return store.Beat{}, err
	}
	return e.Engine.Heartbeat(ctx, r, ttl)
}

// logBuffer is a log that is read at the end of the test.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logBuffer) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// check looks for tokens, API tokens and private keys.
func (l *logBuffer) check(t testing.TB) {
	t.Helper()
	secret := regexp.MustCompile(`zmt_[a-z2-7]{20}|eyJ[A-Za-z0-9_-]{10,}\.|PRIVATE KEY|"encryptedKeyset"|"value":"[A-Za-z0-9+/=]{20}`)
	if found := secret.FindString(l.String()); found != "" {
		t.Errorf("the log has a secret: %.12s…", found)
	}
}

// clock is a replica's clock, which may be wrong.
type clock struct{ ahead atomic.Int64 }

func (c *clock) now() time.Time { return time.Now().Add(time.Duration(c.ahead.Load())) }

func (c *clock) set(ahead time.Duration) { c.ahead.Store(int64(ahead)) }

// patience is for machines with much else to do.
const patience = time.Minute

// eventually waits for something that another goroutine is about to do.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("did not happen in %s: %s", patience, what)
		}
	}
}

// get requests a path and returns the response with its body read.
func (s *server) do(t testing.TB, method, path, body string, header http.Header) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, s.url+path, bytes.NewReader([]byte(body)))
	if err != nil {
		t.Fatal(err)
	}
	req.Header = header.Clone()
	return roundTrip(t, req)
}

func roundTrip(t testing.TB, req *http.Request) (*http.Response, string) {
	t.Helper()
	if req.Header == nil {
		req.Header = http.Header{}
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	var b bytes.Buffer
	if _, err := b.ReadFrom(resp.Body); err != nil && !errors.Is(err, net.ErrClosed) {
		t.Fatal(err)
	}
	return resp, b.String()
}

func (s *server) get(t testing.TB, path string) (*http.Response, string) {
	t.Helper()
	return s.do(t, http.MethodGet, path, "", nil)
}

// private requests a path of the private port.
func (s *server) private(path string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	s.PrivateHandler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
	return w
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// apiTokenFor makes an administrator's API token with a lifetime.
func (w *world) apiTokenFor(t testing.TB, life time.Duration) string {
	t.Helper()
	text, _, err := caller.Create(t.Context(), w.db, store.APIToken{Name: "long", Roles: []string{"admin"}}, life, store.Actor{Name: "cli/test"})
	if err != nil {
		t.Fatal(err)
	}
	return text
}
