package service

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/zonemint/zonemint/proto/zonemint/v1"
	"github.com/zonemint/zonemint/service/caller"
	"github.com/zonemint/zonemint/service/keyring"
	"github.com/zonemint/zonemint/service/profile"
	"github.com/zonemint/zonemint/store"
	"github.com/zonemint/zonemint/token"
)

// tokenService implements zonemint.v1.TokenService.
type tokenService struct{ *Service }

func wantedZone(req *pb.IssueZoneTokenRequest) wanted {
	return wanted{
		Wish:   profile.Zone{Zone: req.GetZone(), Scope: req.GetScopes()},
		keyset: req.GetKeyset(), validFor: req.GetValidFor().AsDuration(),
	}
}

func (s tokenService) IssueZoneToken(ctx context.Context, req *pb.IssueZoneTokenRequest) (*pb.IssueZoneTokenResponse, error) {
	t, err := s.issue(ctx, callerOf(ctx), wantedZone(req))
	if err != nil {
		return nil, err
	}
	return &pb.IssueZoneTokenResponse{Token: t.token, Jti: t.jti, Kid: t.kid, ExpiresAt: timestamppb.New(t.expiresAt)}, nil
}

func wantedDataplane(req *pb.IssueDataplaneTokenRequest) wanted {
	tags := make(map[string][]string, len(req.GetTags()))
	for name, values := range req.GetTags() {
		tags[name] = values.GetValues()
	}
	return wanted{
		Wish: profile.Dataplane{
			Mesh: req.GetMesh(), Name: req.GetName(), Tags: tags, Type: req.GetType(), Workload: req.GetWorkload(),
		},
		keyset: req.GetKeyset(), validFor: req.GetValidFor().AsDuration(),
	}
}

func (s tokenService) IssueDataplaneToken(ctx context.Context, req *pb.IssueDataplaneTokenRequest) (*pb.IssueDataplaneTokenResponse, error) {
	t, err := s.issue(ctx, callerOf(ctx), wantedDataplane(req))
	if err != nil {
		return nil, err
	}
	return &pb.IssueDataplaneTokenResponse{Token: t.token, Jti: t.jti, Kid: t.kid, ExpiresAt: timestamppb.New(t.expiresAt)}, nil
}

func wantedUser(req *pb.IssueUserTokenRequest) wanted {
	return wanted{
		Wish:   profile.User{Name: req.GetName(), Groups: req.GetGroups()},
		keyset: req.GetKeyset(), validFor: req.GetValidFor().AsDuration(),
	}
}

func (s tokenService) IssueUserToken(ctx context.Context, req *pb.IssueUserTokenRequest) (*pb.IssueUserTokenResponse, error) {
	t, err := s.issue(ctx, callerOf(ctx), wantedUser(req))
	if err != nil {
		return nil, err
	}
	return &pb.IssueUserTokenResponse{Token: t.token, Jti: t.jti, Kid: t.kid, ExpiresAt: timestamppb.New(t.expiresAt)}, nil
}

func (s tokenService) IssueTokens(ctx context.Context, req *pb.IssueTokensRequest) (*pb.IssueTokensResponse, error) {
	who := callerOf(ctx)
	results := s.issueBatch(ctx, who, req.GetItems())
	resp := &pb.IssueTokensResponse{Results: make([]*pb.IssueTokensResult, len(results))}
	for i, r := range results {
		if r.err != nil {
			resp.Results[i] = s.itemError(ctx, who, r.err)
			continue
		}
		resp.Results[i] = &pb.IssueTokensResult{Result: &pb.IssueTokensResult_Token{Token: &pb.IssuedToken{
			Token: r.token, Jti: r.jti, Kid: r.kid, ExpiresAt: timestamppb.New(r.expiresAt),
		}}}
	}
	return resp, nil
}

// itemError is an item's error as it would look had it been a call of its own.
func (s tokenService) itemError(ctx context.Context, who caller.Caller, err error) *pb.IssueTokensResult {
	code, text := explain(err)
	s.logFault(ctx, "IssueTokens item", requestID(ctx), who, code, err)
	return &pb.IssueTokensResult{Result: &pb.IssueTokensResult_Error{
		Error: &pb.IssueError{Code: code.String(), Message: text},
	}}
}

func (s tokenService) VerifyToken(ctx context.Context, req *pb.VerifyTokenRequest) (*pb.VerifyTokenResponse, error) {
	name := req.GetKeyset()
	if name == "" {
		name = DefaultKeyset
	}
	if err := callerOf(ctx).MaySee(name); err != nil {
		return nil, err
	}
	ks, err := s.ring.Load().Keyset(name)
	if err != nil {
		return nil, err
	}
	switch ks.Profile {
	case store.ProfileZone:
		return verifyAs[token.ZoneClaims](ctx, s.Service, ks, req.GetToken())
	case store.ProfileDataplane:
		return verifyAs(ctx, s.Service, ks, req.GetToken(), token.RequireMesh(ks.Mesh()))
	case store.ProfileUser:
		return verifyAs[token.UserClaims](ctx, s.Service, ks, req.GetToken())
	default:
		return nil, fmt.Errorf("keyset %s has profile %q", ks.Name, ks.Profile)
	}
}

// revocations asks the database about the jtis of a keyset.
type revocations struct {
	*Service
	keyset *keyring.Keyset
}

func (r revocations) Revoked(ctx context.Context, jti string) (bool, error) {
	return r.store.Revoked(ctx, r.keyset.ID, jti)
}

// verifyAs verifies a token with the library that control planes use, against
// the keys of one keyset and the claims of one profile.
func verifyAs[C token.Claims](ctx context.Context, s *Service, ks *keyring.Keyset, raw string, requirements ...token.Requirement[C]) (*pb.VerifyTokenResponse, error) {
	v, err := token.NewVerifier[C](ks.Public, token.Options{
		Issuer: s.cfg.Issuer, Revocations: revocations{s, ks}, Now: s.clock.estimate,
	})
	if err != nil {
		return nil, err
	}
	resp := &pb.VerifyTokenResponse{Keyset: ks.Name}
	verified, err := v.Verify(ctx, raw, requirements...)
	switch {
	case errors.Is(err, token.ErrRevocationsUnavailable):
		return nil, err // not an answer about the token
	case err != nil:
		resp.Reason, resp.Detail = token.Reason(err), err.Error()
		return resp, nil
	}
	resp.Valid, resp.Kid = true, verified.Header.KeyID
	resp.Claims, resp.ExpiresAt, err = describe(verified.Claims)
	return resp, err
}

func describe[C token.Claims](claims C) (*structpb.Struct, *timestamppb.Timestamp, error) {
	text := claims.AppendJSON(nil)
	var registered struct {
		Exp int64 `json:"exp"`
	}
	out := &structpb.Struct{}
	if err := errors.Join(json.Unmarshal(text, &registered), out.UnmarshalJSON(text)); err != nil {
		return nil, nil, fmt.Errorf("describing claims: %w", err)
	}
	return out, &timestamppb.Timestamp{Seconds: registered.Exp}, nil
}
