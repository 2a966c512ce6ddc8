package service_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/google/uuid"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/zonemint/zonemint/proto/zonemint/v1"
	"github.com/zonemint/zonemint/store"
)

// issuances reads all pages.
func issuances(t testing.TB, c wire, req *pb.ListIssuancesRequest) []*pb.Issuance {
	t.Helper()
	var all []*pb.Issuance
	for {
		resp, err := c.audit.ListIssuances(t.Context(), req)
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		all = append(all, resp.GetIssuances()...)
		if req.PageToken = resp.GetNextPageToken(); req.PageToken == "" {
			return all
		}
	}
}

func TestListIssuances(t *testing.T) {
	w := newWorld(t)
	s := w.start(t, w.config(), zoneAnd("other")...)
	issuer := s.apiToken(t, store.APIToken{Name: "i", Roles: []string{"issuer"}})
	who := must(s.as(issuer).callers.WhoAmI(t.Context(), &pb.WhoAmIRequest{})).GetCaller()
	var want []string
	for i := range 12 {
		r := s.issueFor(t, []string{"zone", "other"}[i%2], fmt.Sprint("zone-", i%3))
		want = append(want, r.GetJti())
	}
	last := must(s.issue(t, issuer))
	want = append(want, last.GetJti())
	slices.Sort(want) // by time, and within a millisecond by chance
	slices.Reverse(want)
	for _, c := range s.wires(s.admin) {
		for _, size := range []int32{0, 1, 4, 13, 1000} {
			all := issuances(t, c, &pb.ListIssuancesRequest{PageSize: size})
			var got []string
			for _, r := range all {
				got = append(got, r.GetJti())
			}
			if !slices.Equal(got, want) {
				t.Errorf("%s by %d: %d, not newest first", c.name, size, len(got))
			}
			i := max(0, slices.Index(got, last.GetJti()))
			if r := all[i]; r.GetKeyset() != "zone" || r.GetSerial() != 1 || r.GetSubject() != "west" || r.GetCaller() != who ||
				!slices.Equal(r.GetScopes(), []string{"ingress", "egress"}) || r.GetExpiresAt().GetSeconds() != last.GetExpiresAt().GetSeconds() ||
				time.Since(r.GetIssuedAt().AsTime()) > time.Minute {
				t.Errorf("%s: %v", c.name, r)
			}
		}
	}
	middle := timestamppb.New(time.Now().Add(-time.Hour))
	c := s.as(s.apiToken(t, store.APIToken{Name: "a", Roles: []string{"auditor"}}))
	for _, f := range []struct {
		n   int
		req *pb.ListIssuancesRequest
	}{
		{7, &pb.ListIssuancesRequest{Keyset: "zone"}}, {6, &pb.ListIssuancesRequest{Keyset: "other", Serial: 1}}, {0, &pb.ListIssuancesRequest{Keyset: "zone", Serial: 2}},
		{4, &pb.ListIssuancesRequest{Subject: "zone-1"}}, {0, &pb.ListIssuancesRequest{Subject: "zone-*"}}, {1, &pb.ListIssuancesRequest{Caller: who}},
		{13, &pb.ListIssuancesRequest{IssuedAfter: middle, Live: true}}, {0, &pb.ListIssuancesRequest{IssuedBefore: middle}},
	} {
		if got := issuances(t, c, f.req); len(got) != f.n {
			t.Errorf("%v: %d, want %d", f.req, len(got), f.n)
		}
	}
	for _, bad := range []*pb.ListIssuancesRequest{{Serial: 1}, {PageToken: "x"}, {PageSize: -1}, {IssuedAfter: middle, IssuedBefore: middle}} {
		_, err := c.audit.ListIssuances(t.Context(), bad)
		wantCode(t, err, connect.CodeInvalidArgument)
	}
	_, err := c.audit.ListIssuances(t.Context(), &pb.ListIssuancesRequest{Keyset: "nosuch"})
	wantCode(t, err, connect.CodeNotFound)
}

func TestNarrowedAuditor(t *testing.T) {
	w := newWorld(t)
	s := w.start(t, w.config(), zoneAnd("other", "user")...)
	for _, zone := range []string{"west", "western", "east"} {
		s.issueFor(t, "", zone)
		s.issueFor(t, "other", zone)
	}
	auditor := func(keysets, zones []string) wire {
		return s.as(s.apiToken(t, store.APIToken{Name: "a", Roles: []string{"auditor"}, Keysets: keysets, Zones: zones}))
	}
	keysets, zones := auditor([]string{"zone"}, nil), auditor(nil, []string{"west*"})
	for n, got := range map[int][]*pb.Issuance{
		3: issuances(t, keysets, &pb.ListIssuancesRequest{Keyset: "zone"}),
		2: issuances(t, zones, &pb.ListIssuancesRequest{Keyset: "other"}),
		1: issuances(t, zones, &pb.ListIssuancesRequest{Keyset: "other", Subject: "west"}),
	} {
		if len(got) != n {
			t.Errorf("%d, want %d", len(got), n)
		}
	}
	for _, c := range []struct {
		wire
		req *pb.ListIssuancesRequest
	}{
		{keysets, &pb.ListIssuancesRequest{}}, {keysets, &pb.ListIssuancesRequest{Keyset: "other"}}, {keysets, &pb.ListIssuancesRequest{Keyset: "nosuch"}},
		{zones, &pb.ListIssuancesRequest{}}, {zones, &pb.ListIssuancesRequest{Keyset: "zone", Subject: "east"}}, {zones, &pb.ListIssuancesRequest{Keyset: "user"}},
	} {
		_, err := c.audit.ListIssuances(t.Context(), c.req)
		wantCode(t, err, connect.CodePermissionDenied)
	}
	for _, c := range []wire{keysets, zones} {
		_, err := c.audit.ListAuditEvents(t.Context(), &pb.ListAuditEventsRequest{})
		wantCode(t, err, connect.CodePermissionDenied)
	}
}

func TestListAuditEvents(t *testing.T) {
	s := newTestServer(t)
	c := s.as(s.admin)
	issued := s.issueFor(t, "", "west")
	must(c.revocations.RevokeToken(t.Context(), &pb.RevokeTokenRequest{Jti: issued.GetJti(), Reason: "stolen"}))
	must(c.revocations.LiftRevocation(t.Context(), &pb.LiftRevocationRequest{Keyset: "zone", Jti: issued.GetJti(), Reason: "found"}))
	me := must(c.callers.WhoAmI(t.Context(), &pb.WhoAmIRequest{})).GetCaller()
	list := func(c wire, req *pb.ListAuditEventsRequest) []*pb.AuditEvent {
		t.Helper()
		var all []*pb.AuditEvent
		for {
			resp, err := c.audit.ListAuditEvents(t.Context(), req)
			if err != nil {
				t.Fatalf("%s: %v", c.name, err)
			}
			all = append(all, resp.GetEvents()...)
			if req.PageToken = resp.GetNextPageToken(); req.PageToken == "" {
				return all
			}
		}
	}
	whole := list(c, &pb.ListAuditEventsRequest{})
	for _, wire := range s.wires(s.admin) {
		for _, size := range []int32{1, 3, 1000} {
			if got := list(wire, &pb.ListAuditEventsRequest{PageSize: size}); len(got) != len(whole) || got[0].GetId() != whole[0].GetId() {
				t.Errorf("%s by %d: %d, want %d", wire.name, size, len(got), len(whole))
			}
		}
		got := list(wire, &pb.ListAuditEventsRequest{ActionPrefix: "revocation.", Actor: me, PageSize: 1})
		if len(got) != 2 || got[0].GetAction() != "revocation.lift" || got[1].GetAction() != "revocation.create" {
			t.Fatalf("%s: %v", wire.name, got)
		}
		if e := got[1]; e.GetActor() != me || e.GetRequestId() == "" || !strings.Contains(e.GetDetail(), "stolen") ||
			!strings.Contains(e.GetTarget(), issued.GetJti()) || time.Since(e.GetAt().AsTime()) > time.Minute {
			t.Errorf("%s: %v", wire.name, e)
		}
	}
	hence := timestamppb.New(time.Now().Add(time.Hour))
	if got := list(c, &pb.ListAuditEventsRequest{After: hence}); len(got) != 0 {
		t.Errorf("%v", got)
	}
	if got := list(c, &pb.ListAuditEventsRequest{Before: hence, Actor: "nobody"}); len(got) != 0 {
		t.Errorf("%v", got)
	}
	if got := list(c, &pb.ListAuditEventsRequest{PageToken: uuid.Max.String()}); len(got) != len(whole) {
		t.Errorf("%d", len(got))
	}
	_, err := c.audit.ListAuditEvents(t.Context(), &pb.ListAuditEventsRequest{PageToken: "x"})
	wantCode(t, err, connect.CodeInvalidArgument)
	_, err = c.audit.ListAuditEvents(t.Context(), &pb.ListAuditEventsRequest{After: &timestamppb.Timestamp{Nanos: -5}})
	wantCode(t, err, connect.CodeInvalidArgument)
}
