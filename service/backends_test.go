package service_test

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"

	pb "github.com/zonemint/zonemint/proto/zonemint/v1"
	"github.com/zonemint/zonemint/signer"
	"github.com/zonemint/zonemint/signer/signertest"
)

// A backend that is down is not waited for, is seen in readiness and in the
// metrics, and stops none of the others. When it is back, so are its keys.
func TestBackendDown(t *testing.T) {
	w := newWorld(t)
	hsm := signertest.NewFake(t, signertest.FakeOptions{})
	w.backends["hsm"] = hsm
	s := w.start(t, w.config(), zoneKeyset(), &pb.Keyset{Name: "edge", Profile: pb.Profile_PROFILE_ZONE, Algorithm: "ES256", Backend: "hsm"})
	edge := func() error {
		_, err := s.as(s.admin).tokens.IssueZoneToken(t.Context(), &pb.IssueZoneTokenRequest{Zone: "west", ValidFor: hour(), Keyset: "edge"})
		return err
	}
	if err := edge(); err != nil {
		t.Fatal(err)
	}
	hsm.Inject(signertest.Fault{Op: signertest.OpSign, Err: signertest.Fail(signer.Unavailable)})
	before, began := hsm.Calls(signertest.OpSign), time.Now()
	for range 50 {
		wantCode(t, edge(), connect.CodeUnavailable)
	}
	calls, took := hsm.Calls(signertest.OpSign)-before, time.Since(began)
	if calls > 20+int(4*took.Seconds()) { // it is asked four times a second whether it is back
		t.Errorf("%d of 50 calls within %s were made to a backend that is down", calls, took)
	}
	edgeKey := must(s.as(s.admin).keys.GetSigningKey(t.Context(), &pb.GetSigningKeyRequest{Keyset: "edge", Serial: 1}))
	if rows := edgeKey.GetLiveTokens(); rows > int64(1+calls) {
		t.Errorf("%d rows for 1 token and %d attempts to sign one", rows, calls)
	}
	if w := s.private("/healthz/ready"); w.Code != 503 || w.Body.String() != "backend \"hsm\" does not answer\n" {
		t.Errorf("readiness is %d %q", w.Code, w.Body)
	}
	metrics := s.private("/metrics").Body.String()
	for _, want := range []string{
		`zonemint_backend_up{backend="hsm"} 0`, `zonemint_backend_refused_total{backend="hsm",op="sign"}`,
		`zonemint_backend_call_duration_seconds_count{backend="hsm",code="unavailable",op="sign"}`,
		`zonemint_backend_call_duration_seconds_count{backend="hsm",code="ok",op="create"} 2`,
	} {
		if !strings.Contains(metrics, want) {
			t.Errorf("the metrics lack %s", want)
		}
	}
	if _, err := s.issue(t, s.admin); err != nil {
		t.Errorf("a keyset of another backend: %v", err)
	}
	hsm.Heal()
	eventually(t, "it signs again", func() bool { return edge() == nil })
	if w := s.private("/healthz/ready"); w.Code != 200 {
		t.Errorf("readiness is %d %q", w.Code, w.Body)
	}
}

// batching is a backend that signs many tokens in one call.
type batching struct {
	signer.Backend
	calls, tokens atomic.Int64
}

func (b *batching) Open(ctx context.Context, s signer.Spec, ref signer.Ref) (signer.Handle, error) {
	h, err := b.Backend.Open(ctx, s, ref)
	return batchingHandle{h, b}, err
}

type batchingHandle struct {
	signer.Handle
	b *batching
}

func (h batchingHandle) SignBatch(ctx context.Context, alg signer.Algorithm, ins [][]byte) ([][]byte, []error) {
	h.b.calls.Add(1)
	h.b.tokens.Add(int64(len(ins)))
	sigs, errs := make([][]byte, len(ins)), make([]error, len(ins))
	for i, in := range ins {
		sigs[i], errs[i] = h.Sign(ctx, alg, in)
	}
	return sigs, errs
}

// Where a backend can sign many at once, a batch of tokens is one call, and
// what is of another keyset, or wrong, is not among them.
func TestBatchIsSignedTogether(t *testing.T) {
	w := newWorld(t)
	b := &batching{Backend: signertest.NewFake(t, signertest.FakeOptions{})}
	w.backends["remote"] = b
	s := w.start(t, w.config(), zoneKeyset(), &pb.Keyset{Name: "edge", Profile: pb.Profile_PROFILE_ZONE, Algorithm: "ES256", Backend: "remote"})
	b.calls.Store(0)
	b.tokens.Store(0)
	items := make([]*pb.IssueTokensItem, 600)
	for i := range items {
		req := &pb.IssueZoneTokenRequest{Zone: "west", ValidFor: hour(), Keyset: "edge"}
		if i%6 == 0 {
			req.Keyset = "zone"
		}
		if i == 7 {
			req.Zone = "-"
		}
		items[i] = &pb.IssueTokensItem{Profile: &pb.IssueTokensItem_Zone{Zone: req}}
	}
	resp := must(s.as(s.admin).tokens.IssueTokens(t.Context(), &pb.IssueTokensRequest{Items: items}))
	seen := map[string]bool{}
	for i, r := range resp.GetResults() {
		if i == 7 {
			if r.GetError().GetCode() != "invalid_argument" {
				t.Errorf("item 7: %v", r)
			}
			continue
		}
		keyset := items[i].GetZone().GetKeyset()
		raw := r.GetToken().GetToken()
		v := must(s.as(s.admin).tokens.VerifyToken(t.Context(), &pb.VerifyTokenRequest{Token: raw, Keyset: keyset}))
		if !v.GetValid() || v.GetClaims().GetFields()["jti"].GetStringValue() != r.GetToken().GetJti() || seen[raw] {
			t.Fatalf("item %d of %s: %v", i, keyset, v)
		}
		seen[raw] = true
	}
	if calls, tokens := b.calls.Load(), b.tokens.Load(); calls != 1 || tokens != 499 {
		t.Errorf("%d calls for %d tokens, want 1 for 499", calls, tokens)
	}
}
