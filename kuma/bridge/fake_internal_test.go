package bridge

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"

	double "github.com/zonemint/zonemint/integration/controlplane"
	"github.com/zonemint/zonemint/kuma/controlplane"
	pb "github.com/zonemint/zonemint/proto/zonemint/v1"
	v1 "github.com/zonemint/zonemint/proto/zonemint/v1/zonemintv1connect"
)

// pageOf is a page of a feed, as tests write it.
type pageOf struct {
	reset, more     bool
	revoked, lifted []string
	exp             int64 // 0: in a year
}

func page(epoch string, seq int64, p pageOf) *pb.WatchRevocationsResponse {
	out := &pb.WatchRevocationsResponse{Epoch: epoch, Seq: seq, Reset_: p.reset, More: p.more, Lifted: p.lifted}
	for _, jti := range p.revoked {
		exp := p.exp
		if exp == 0 {
			exp = time.Now().AddDate(1, 0, 0).Unix()
		}
		out.Revoked = append(out.Revoked, &pb.RevokedToken{Jti: jti, Exp: exp})
	}
	return out
}

// zonemint is a server, as far as a bridge asks.
type zonemint struct {
	v1.UnimplementedKeyServiceHandler
	v1.UnimplementedRevocationServiceHandler

	mu       sync.Mutex
	keysets  []*pb.Keyset
	keys     map[string][]*pb.SigningKey
	pages    map[string][]*pb.WatchRevocationsResponse
	states   map[string]pb.RevocationState // of token IDs; the others are unknown
	acks     []*pb.AcknowledgeKeysRequest
	failing  error
	changed  chan struct{}
	failWhat string // which call fails; "" is all
}

func newZonemint() *zonemint {
	return &zonemint{
		keys: map[string][]*pb.SigningKey{}, pages: map[string][]*pb.WatchRevocationsResponse{},
		states: map[string]pb.RevocationState{}, changed: make(chan struct{}),
	}
}

// do changes the state and wakes the streams.
func (z *zonemint) do(change func()) {
	z.mu.Lock()
	defer z.mu.Unlock()
	change()
	close(z.changed)
	z.changed = make(chan struct{})
}

func (z *zonemint) revoke(keyset string, jtis ...string) {
	z.do(func() {
		z.pages[keyset] = append(z.pages[keyset], page("e", int64(len(z.pages[keyset])+1), pageOf{revoked: jtis}))
		for _, jti := range jtis {
			z.states[jti] = pb.RevocationState_REVOCATION_STATE_REVOKED
		}
	})
}

func (z *zonemint) lift(keyset string, jtis ...string) {
	z.do(func() {
		z.pages[keyset] = append(z.pages[keyset], page("e", int64(len(z.pages[keyset])+1), pageOf{lifted: jtis}))
		for _, jti := range jtis {
			z.states[jti] = pb.RevocationState_REVOCATION_STATE_LIFTED
		}
	})
}

func (z *zonemint) setKeys(keyset string, keys ...*pb.SigningKey) {
	z.do(func() { z.keys[keyset] = keys })
}

func (z *zonemint) acknowledged() []string {
	z.mu.Lock()
	defer z.mu.Unlock()
	if len(z.acks) == 0 {
		return nil
	}
	return z.acks[len(z.acks)-1].GetKids()
}

// saidOnly says whether, after so many acknowledgements, there was one of these keys.
func (z *zonemint) saidOnly(after int, kids ...string) bool {
	z.mu.Lock()
	defer z.mu.Unlock()
	return slices.ContainsFunc(z.acks[after:], func(a *pb.AcknowledgeKeysRequest) bool { return slices.Equal(a.GetKids(), kids) })
}

func (z *zonemint) said() int {
	z.mu.Lock()
	defer z.mu.Unlock()
	return len(z.acks)
}

func (z *zonemint) fails(what string) error {
	z.mu.Lock()
	defer z.mu.Unlock()
	if z.failWhat == "" || z.failWhat == what {
		return z.failing
	}
	return nil
}

func (z *zonemint) ListKeysets(context.Context, *pb.ListKeysetsRequest) (*pb.ListKeysetsResponse, error) {
	if err := z.fails("ListKeysets"); err != nil {
		return nil, err
	}
	z.mu.Lock()
	defer z.mu.Unlock()
	return &pb.ListKeysetsResponse{Keysets: slices.Clone(z.keysets)}, nil
}

func (z *zonemint) ListSigningKeys(_ context.Context, req *pb.ListSigningKeysRequest) (*pb.ListSigningKeysResponse, error) {
	if err := z.fails("ListSigningKeys"); err != nil {
		return nil, err
	}
	z.mu.Lock()
	defer z.mu.Unlock()
	return &pb.ListSigningKeysResponse{SigningKeys: slices.Clone(z.keys[req.GetKeyset()])}, nil
}

func (z *zonemint) AcknowledgeKeys(_ context.Context, req *pb.AcknowledgeKeysRequest) (*pb.AcknowledgeKeysResponse, error) {
	if err := z.fails("AcknowledgeKeys"); err != nil {
		return nil, err
	}
	z.mu.Lock()
	defer z.mu.Unlock()
	z.acks = append(z.acks, req)
	return &pb.AcknowledgeKeysResponse{}, nil
}

func (z *zonemint) CheckRevocations(_ context.Context, req *pb.CheckRevocationsRequest) (*pb.CheckRevocationsResponse, error) {
	if err := z.fails("CheckRevocations"); err != nil {
		return nil, err
	}
	z.mu.Lock()
	defer z.mu.Unlock()
	out := &pb.CheckRevocationsResponse{}
	for _, jti := range req.GetJtis() {
		state := z.states[jti]
		if state == 0 {
			state = pb.RevocationState_REVOCATION_STATE_UNKNOWN
		}
		out.States = append(out.States, state)
	}
	return out, nil
}

func (z *zonemint) WatchRevocations(ctx context.Context, req *pb.WatchRevocationsRequest, stream *connect.ServerStream[pb.WatchRevocationsResponse]) error {
	if err := z.fails("WatchRevocations"); err != nil {
		return err
	}
	at := req.GetSince()
	if err := stream.Send(&pb.WatchRevocationsResponse{Epoch: "e", Seq: at, More: true}); err != nil {
		return err
	}
	for {
		z.mu.Lock()
		pages, changed := z.pages[req.GetKeyset()], z.changed
		z.mu.Unlock()
		if int(at) >= len(pages) {
			if err := stream.Send(&pb.WatchRevocationsResponse{Epoch: "e", Seq: at}); err != nil {
				return err
			}
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-changed:
			}
			continue
		}
		for _, p := range pages[at:] {
			if err := stream.Send(p); err != nil {
				return err
			}
		}
		at = int64(len(pages))
	}
}

// bench is a bridge between a zonemint and a control plane.
type bench struct {
	*zonemint
	cp     *double.ControlPlane
	server *double.Server
	bridge *Bridge
	log    *syncBuffer
}

// newBench puts a bridge together. The keyset "zone" has one key that signs and one
// that is published, and waits for the control plane "cp".
func newBench(t *testing.T, change func(*Config)) *bench {
	t.Helper()
	b := &bench{zonemint: newZonemint(), cp: double.New("an-admin", "default"), log: &syncBuffer{}}
	b.keysets = []*pb.Keyset{
		{Name: "zone", Profile: pb.Profile_PROFILE_ZONE, Consumers: []string{"cp"}},
		{Name: "dataplane/default", Profile: pb.Profile_PROFILE_DATAPLANE, Mesh: "default"},
		{Name: "user", Profile: pb.Profile_PROFILE_USER},
	}
	b.keys["zone"] = []*pb.SigningKey{signingKey(t, "zone-1-a", "active"), signingKey(t, "zone-2-b", "published")}
	mux := http.NewServeMux()
	mux.Handle(v1.NewKeyServiceHandler(b.zonemint))
	mux.Handle(v1.NewRevocationServiceHandler(b.zonemint))
	srv := httptest.NewServer(mux)
	t.Cleanup(srv.Close)
	t.Cleanup(srv.CloseClientConnections)
	var err error
	if b.server, err = double.Serve(b.cp); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.server.Stop)
	store, err := controlplane.NewREST(controlplane.RESTConfig{Address: b.server.URL(), Credential: func() (string, error) { return "an-admin", nil }})
	if err != nil {
		t.Fatal(err)
	}
	c := Config{
		Keys: v1.NewKeyServiceClient(srv.Client(), srv.URL), Revocations: v1.NewRevocationServiceClient(srv.Client(), srv.URL),
		Log:           slog.New(slog.NewTextHandler(b.log, nil)),
		ControlPlanes: []ControlPlane{{Name: "cp", Store: store, ZoneDelay: 50 * time.Millisecond, Resync: 100 * time.Millisecond}},
	}
	if change != nil {
		change(&c)
	}
	if b.bridge, err = New(c); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, v := range b.cp.Violations() {
			t.Error("the control plane objects:", v)
		}
		if t.Failed() {
			t.Logf("the bridge's log:\n%s", b.log)
		}
	})
	return b
}

// run runs the bridge until the test ends.
func (b *bench) run(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error)
	go func() { done <- b.bridge.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error("the bridge:", err)
		}
	})
}

// once runs the bridge once and returns what it says of the control plane.
func (b *bench) once(t *testing.T) Report {
	t.Helper()
	reports, err := b.bridge.Once(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return reports[0]
}

// item returns what the report says of a secret or keyset.
func (r Report) item(t *testing.T, name string) Item {
	t.Helper()
	for _, i := range r.Items {
		if i.Secret == name || i.Keyset == name {
			return i
		}
	}
	t.Fatalf("nothing is said of %s: %+v", name, r.Items)
	return Item{}
}

// eventually waits until something holds, and fails the test if it never does.
func (b *bench) eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("it never came to be: %s", what)
		}
	}
}

// data returns what is in a secret.
func (b *bench) data(mesh, name string) string {
	s, _ := b.cp.Secret(double.Ref{Mesh: mesh, Name: name})
	return s.Data
}

func (b *bench) hasList(t *testing.T, name, want string) {
	t.Helper()
	b.eventually(t, name+" is "+want, func() bool { return b.data("", name) == want })
}

func signingKey(t *testing.T, kid, state string) *pb.SigningKey {
	t.Helper()
	return &pb.SigningKey{Keyset: "zone", Kid: kid, State: state, PublicKey: newPEM(t)}
}

var errDown = connect.NewError(connect.CodeUnavailable, errors.New("it is down"))

// syncBuffer is a buffer that may be read while it is written.
type syncBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}
