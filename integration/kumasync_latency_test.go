package integration

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/zonemint/zonemint/integration/controlplane"
	pb "github.com/zonemint/zonemint/proto/zonemint/v1"
)

// TestKumaSyncLatency measures how long it takes from a call that revokes a token
// until its ID is in the control plane's list, which has many entries already. The
// figure is reported and not judged: it is the machine's as much as zonemint's.
func TestKumaSyncLatency(t *testing.T) {
	s := newSynced(t)
	entries, samples := rounds(2_000, 20_000), rounds(20, 200)
	issued := s.issueMany(t, entries+samples)
	resp, err := s.revocations.RevokeTokens(t.Context(), &pb.RevokeTokensRequest{Filter: &pb.RevocationFilter{Keyset: "zone", Zone: "bulk"}, Reason: "a test"})
	if err != nil || resp.GetRevoked() != int64(entries) {
		t.Fatalf("revoked %d of %d: %v", resp.GetRevoked(), entries, err)
	}
	s.startBridge(t)
	took := eventually(t, 30*time.Second, "the list is there", func() bool { return len(s.entries("", zoneList)) == entries })
	list, _ := s.plane.Secret(controlplane.Ref{Name: zoneList})
	t.Logf("%d entries, %d bytes, %s after the bridge was started", entries, len(list.Data), took.Round(time.Millisecond))
	var all []time.Duration
	for _, jti := range issued[entries:] {
		began := time.Now()
		s.revoke(t, jti)
		for {
			secret, _ := s.plane.Secret(controlplane.Ref{Name: zoneList})
			if strings.HasSuffix(secret.Data, ","+jti) {
				break
			}
			if time.Since(began) > 30*time.Second {
				t.Fatal("the revocation does not arrive")
			}
			time.Sleep(time.Millisecond)
		}
		all = append(all, time.Since(began))
	}
	slices.Sort(all)
	at := func(percent int) time.Duration { return all[(len(all)-1)*percent/100].Round(time.Millisecond) }
	t.Logf("from revoke to the control plane's secret, %d entries, %d samples: p50 %s, p90 %s, p99 %s, longest %s",
		entries, samples, at(50), at(90), at(99), at(100))
	if got := len(s.entries("", zoneList)); got != entries+samples {
		t.Errorf("%d entries, want %d", got, entries+samples)
	}
	s.bridge.stop(t)
}

// issueMany issues zone tokens, the last 200 of them not for the zone "bulk".
func (s *synced) issueMany(t *testing.T, n int) (ids []string) {
	t.Helper()
	bulk := n - rounds(20, 200)
	for len(ids) < n {
		req := &pb.IssueTokensRequest{}
		for i := len(ids); i < min(n, len(ids)+1000); i++ {
			zone := "bulk"
			if i >= bulk {
				zone = fmt.Sprintf("zone-%d", i)
			}
			item := &pb.IssueZoneTokenRequest{Zone: zone, ValidFor: durationpb.New(time.Hour)}
			req.Items = append(req.Items, &pb.IssueTokensItem{Profile: &pb.IssueTokensItem_Zone{Zone: item}})
		}
		resp, err := s.client.tokens.IssueTokens(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range resp.GetResults() {
			if r.GetToken() == nil {
				t.Fatal(r.GetError())
			}
			ids = append(ids, r.GetToken().GetJti())
		}
	}
	return ids
}
