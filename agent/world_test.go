package agent_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/zonemint/zonemint/agent"
	pb "github.com/zonemint/zonemint/proto/zonemint/v1"
)

// server stands for a zonemint. Its clock is the test's.
type server struct {
	mu     sync.Mutex
	issued []time.Time                     // when
	fail   func(ctx context.Context) error // nil: it works
	change func(claims map[string]any)     // nil: it issues what was asked for
}

func (s *server) zone(ctx context.Context, req *pb.IssueZoneTokenRequest) (*pb.IssueZoneTokenResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail != nil {
		if err := s.fail(ctx); err != nil {
			return nil, err
		}
	}
	s.issued = append(s.issued, time.Now())
	claims := map[string]any{"Zone": req.GetZone(), "Scope": req.GetScopes(), "jti": fmt.Sprint("jti-", len(s.issued))}
	stamp(claims, time.Now(), req.GetValidFor().AsDuration())
	if s.change != nil {
		s.change(claims)
	}
	return &pb.IssueZoneTokenResponse{Token: sign(claims)}, nil
}

func (s *server) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.issued)
}

// breaks has the server fail from now on; nil mends it.
func (s *server) breaks(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail = func(context.Context) error { return err }
}

// stamp dates claims as zonemint does.
func stamp(claims map[string]any, now time.Time, validFor time.Duration) {
	early := now.Add(-5 * time.Second).Unix()
	claims["exp"], claims["iat"], claims["nbf"] = now.Add(validFor).Unix(), early, early
}

// sign makes what looks like a token. Agents do not verify.
func sign(claims map[string]any) string {
	body, err := json.Marshal(claims)
	if err != nil {
		panic(err)
	}
	encode := base64.RawURLEncoding.EncodeToString
	return encode([]byte(`{"alg":"RS256","kid":"zone-1","typ":"JWT"}`)) + "." + encode(body) + "." + encode([]byte(strings.Repeat("signature", 30)))
}

// zoneToken is a token for zone east as the server issued it then.
func zoneToken(id string, at time.Time, validFor time.Duration, scopes ...string) string {
	claims := map[string]any{"Zone": "east", "Scope": scopes, "jti": id}
	stamp(claims, at, validFor)
	return sign(claims)
}

// expiryOf reads a whole token, and its expiry.
func expiryOf(text string) (id string, expires time.Time, err error) {
	parts := strings.Split(text, ".")
	if len(parts) != 3 || parts[2] != base64.RawURLEncoding.EncodeToString([]byte(strings.Repeat("signature", 30))) {
		return "", time.Time{}, fmt.Errorf("torn: %q", text)
	}
	body, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return "", time.Time{}, err
	}
	var claims struct {
		ID  string `json:"jti"`
		Exp int64  `json:"exp"`
	}
	err = json.Unmarshal(body, &claims)
	return claims.ID, time.Unix(claims.Exp, 0), err
}

// world is an agent with what is round it.
type world struct {
	server *server
	path   string
	log    *logged
	o      agent.Options
}

const life = time.Hour

// newWorld has an agent keep a token for zone east, scope cp, in a file.
func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{server: &server{}, path: filepath.Join(t.TempDir(), "token"), log: &logged{}}
	w.o = agent.Options{
		Source: agent.Zone(w.server.zone, &pb.IssueZoneTokenRequest{Zone: "east", Scopes: []string{"cp"}, ValidFor: durationpb.New(life)}),
		Sink:   w.file(t),
		Log:    slog.New(slog.NewTextHandler(w.log, nil)),
	}
	return w
}

func (w *world) file(t *testing.T) *agent.File {
	t.Helper()
	f, err := agent.OpenFile(agent.FileOptions{Path: w.path, UID: -1, GID: -1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

// start runs the agent until the returned function is called.
func (w *world) start(t *testing.T) (*agent.Agent, func()) {
	t.Helper()
	a := agent.New(w.o)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		a.Run(ctx)
	}()
	return a, func() {
		cancel()
		<-done
	}
}

// put writes the file as somebody else would.
func (w *world) put(t *testing.T, text string) {
	t.Helper()
	if err := os.WriteFile(w.path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// has returns what is in the file.
func (w *world) has(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile(w.path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return string(b)
}

// id returns the ID of the token in the file, which has to be whole.
func (w *world) id(t *testing.T) string {
	t.Helper()
	id, _, err := expiryOf(w.has(t))
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// logged is what an agent has logged.
type logged struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *logged) count(what string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.text.String(), what)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

var errDown = connect.NewError(connect.CodeUnavailable, errors.New("down"))
