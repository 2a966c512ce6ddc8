package service

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/google/uuid"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/zonemint/zonemint/proto/zonemint/v1"
	"github.com/zonemint/zonemint/service/caller"
	"github.com/zonemint/zonemint/store"
)

// revocationService implements zonemint.v1.RevocationService.
type revocationService struct{ *Service }

func (s revocationService) RevokeToken(ctx context.Context, req *pb.RevokeTokenRequest) (*pb.RevokeTokenResponse, error) {
	target, err := s.target(ctx, callerOf(ctx), req)
	if err != nil {
		return nil, err
	}
	items := []store.Revoke{{JTI: target.jti, ExpiresAt: target.expiresAt}}
	before := s.feed.Head(target.keyset.ID)
	done, err := s.store.Revoke(ctx, target.keyset.ID, items, req.GetReason(), actorOf(ctx))
	switch {
	case err != nil:
		return nil, err
	case len(done) == 0:
		return &pb.RevokeTokenResponse{Expired: true}, nil
	}
	s.announceSince(ctx, before, target.how, done[0])
	return &pb.RevokeTokenResponse{Revocation: revocationToProto(target.keyset.Name, done[0])}, nil
}

// announceSince announces a revocation, unless it was in the feed before: what is
// asked for again changes nothing.
func (s revocationService) announceSince(ctx context.Context, before store.FeedPosition, how string, r store.Revocation) {
	if r.Seq > before.Seq {
		s.announce(ctx, how, 1)
	}
}

// announce counts revocations and lets this replica's streams know at once.
func (s revocationService) announce(ctx context.Context, how string, n int64) {
	s.metrics.revoked(ctx, how, n)
	s.feed.Wake()
}

func (s revocationService) RevokeTokens(ctx context.Context, req *pb.RevokeTokensRequest) (*pb.RevokeTokensResponse, error) {
	want := req.GetFilter()
	if want.GetZone() == "" && want.GetKeyset() == "" && want.GetSerial() == 0 && want.GetCaller() == "" &&
		want.GetIssuedAfter() == nil && want.GetIssuedBefore() == nil {
		return nil, &invalid{"filter", "is empty and would match every token; say which are meant"}
	}
	f, err := s.ledgerFilter(callerOf(ctx), ledgerWish{
		keyset: want.GetKeyset(), serial: want.GetSerial(), subject: want.GetZone(), caller: want.GetCaller(),
		after: want.GetIssuedAfter(), before: want.GetIssuedBefore(),
	})
	if err != nil {
		return nil, err
	}
	f.Live = true
	if req.GetDryRun() {
		n, err := search(ctx, s.Service, func() (int64, error) { return s.store.CountMatching(ctx, f) })
		return &pb.RevokeTokensResponse{Matched: n}, err
	}
	matched, revoked, err := s.store.RevokeMatching(ctx, f, req.ExpectedCount, req.GetReason(), actorOf(ctx))
	if errors.Is(err, store.ErrUnexpectedCount) {
		return nil, &countError{matched, req.GetExpectedCount()}
	}
	if err != nil {
		return nil, err
	}
	s.announce(ctx, "filter", revoked)
	return &pb.RevokeTokensResponse{Matched: matched, Revoked: revoked}, nil
}

func (s revocationService) LiftRevocation(ctx context.Context, req *pb.LiftRevocationRequest) (*pb.LiftRevocationResponse, error) {
	who := callerOf(ctx)
	ks, err := s.visible(who, req.GetKeyset())
	if err != nil {
		return nil, err
	}
	if err := s.mayReachID(ctx, who, ks, req.GetJti()); err != nil {
		return nil, err
	}
	before := s.feed.Head(ks.ID)
	r, err := inEitherForm(req.GetJti(), func(jti string) (store.Revocation, error) {
		return s.store.LiftRevocation(ctx, ks.ID, jti, req.GetReason(), actorOf(ctx))
	})
	if err != nil {
		return nil, err
	}
	s.announceSince(ctx, before, "lift", r)
	return &pb.LiftRevocationResponse{Revocation: revocationToProto(ks.Name, r)}, nil
}

func (s revocationService) GetRevocation(ctx context.Context, req *pb.GetRevocationRequest) (*pb.GetRevocationResponse, error) {
	who := callerOf(ctx)
	ks, err := s.visible(who, req.GetKeyset())
	if err != nil {
		return nil, err
	}
	r, err := inEitherForm(req.GetJti(), func(jti string) (store.Revocation, error) {
		return s.store.Revocation(ctx, ks.ID, jti)
	})
	if err != nil {
		return nil, err
	}
	return &pb.GetRevocationResponse{Revocation: revocationFor(who, ks.Name, r)}, nil
}

func (s revocationService) ListRevocations(ctx context.Context, req *pb.ListRevocationsRequest) (*pb.ListRevocationsResponse, error) {
	who := callerOf(ctx)
	ks, err := s.visible(who, req.GetKeyset())
	if err != nil {
		return nil, err
	}
	var after int64
	if p := req.GetPageToken(); p != "" {
		if after, err = strconv.ParseInt(p, 10, 64); err != nil || after < 1 {
			return nil, errPageToken()
		}
	}
	size := pageSize(req.GetPageSize())
	list, err := s.store.Revocations(ctx, ks.ID, after, size)
	if err != nil {
		return nil, err
	}
	resp := &pb.ListRevocationsResponse{Revocations: make([]*pb.Revocation, len(list))}
	for i, r := range list {
		resp.Revocations[i] = revocationFor(who, ks.Name, r)
	}
	if len(list) == size {
		resp.NextPageToken = strconv.FormatInt(list[size-1].Seq, 10)
	}
	return resp, nil
}

func pageSize(asked int32) int {
	if asked == 0 {
		return defaultPageSize
	}
	return int(asked)
}

func errPageToken() error { return &invalid{"page_token", "is not one that this call returned"} }

// inEitherForm looks for a token ID as it is written, and if there is no such one,
// as UUIDs are written in tokens.
func inEitherForm(jti string, look func(jti string) (store.Revocation, error)) (store.Revocation, error) {
	r, err := look(jti)
	if !errors.Is(err, store.ErrNotFound) {
		return r, err
	}
	id, invalid := uuid.Parse(jti)
	if invalid != nil || id.String() == jti {
		return r, err
	}
	return look(id.String())
}

// revocationFor is what a caller may read of a revocation.
func revocationFor(who caller.Caller, keyset string, r store.Revocation) *pb.Revocation {
	if !who.MayReadReasons() {
		r.Reason, r.Caller = "", ""
	}
	return revocationToProto(keyset, r)
}

func revocationToProto(keyset string, r store.Revocation) *pb.Revocation {
	return &pb.Revocation{
		Keyset: keyset, Jti: r.JTI, Seq: r.Seq, Reason: r.Reason, Caller: r.Caller,
		ExpiresAt: timestamppb.New(r.ExpiresAt), RevokedAt: timestamppb.New(r.RevokedAt), LiftedAt: timestamp(r.LiftedAt),
	}
}

// wholeSeconds returns the first whole second at or after t. What is said of an
// expiry must never be too early.
func wholeSeconds(t time.Time) time.Time {
	if whole := t.Truncate(time.Second); !whole.Equal(t) {
		return whole.Add(time.Second)
	}
	return t
}
