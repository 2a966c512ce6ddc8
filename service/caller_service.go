package service

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/zonemint/zonemint/proto/zonemint/v1"
	"github.com/zonemint/zonemint/service/caller"
	"github.com/zonemint/zonemint/store"
)

const (
	defaultAPITokenLife = 90 * 24 * time.Hour
	defaultPageSize     = 100
)

// callerService implements zonemint.v1.CallerService.
type callerService struct{ *Service }

func (s callerService) CreateApiToken(ctx context.Context, req *pb.CreateApiTokenRequest) (*pb.CreateApiTokenResponse, error) {
	who := callerOf(ctx)
	if _, err := caller.ParseRoles(req.GetRoles()); err != nil {
		return nil, &invalid{"roles", err.Error()}
	}
	wanted := store.APIToken{
		Name: req.GetName(), Roles: req.GetRoles(), Keysets: req.GetKeysets(), Zones: req.GetZones(),
		Scopes: req.GetScopes(), Dataplanes: req.GetDataplanes(),
		MaxValidFor: req.GetMaxValidFor().AsDuration().Truncate(time.Second),
	}
	if len(wanted.Dataplanes) != 0 && (len(wanted.Zones) != 0 || len(wanted.Scopes) != 0 || !slices.Equal(wanted.Roles, []string{string(caller.Issuer)})) {
		return nil, &invalid{"dataplanes", "is for API tokens with the role issuer and no other, without zones and scopes"}
	}
	if err := who.MayGrant(wanted); err != nil {
		return nil, err
	}
	life := defaultAPITokenLife
	if d := req.GetExpiresIn(); d != nil {
		life = d.AsDuration()
	}
	text, made, err := caller.Create(ctx, s.store, wanted, life, actorOf(ctx))
	if err != nil {
		return nil, err
	}
	return &pb.CreateApiTokenResponse{Token: text, ApiToken: apiTokenToProto(made)}, nil
}

func (s callerService) ListApiTokens(ctx context.Context, req *pb.ListApiTokensRequest) (*pb.ListApiTokensResponse, error) {
	before := uuid.Max
	if p := req.GetPageToken(); p != "" {
		id, err := uuid.Parse(p)
		if err != nil {
			return nil, &invalid{"page_token", "is not one that this call returned"}
		}
		before = id
	}
	size := int(req.GetPageSize())
	if size == 0 {
		size = defaultPageSize
	}
	tokens, err := s.store.APITokens(ctx, before, size)
	full := len(tokens) == size || len(tokens) > 0 && errors.Is(err, store.ErrTampered)
	if err := s.despiteTampering(ctx, err); err != nil {
		return nil, err
	}
	who := callerOf(ctx)
	resp := &pb.ListApiTokensResponse{}
	for _, t := range tokens {
		// A narrowed caller sees those that are within its own bounds.
		if who.MayGrant(t) == nil {
			resp.ApiTokens = append(resp.ApiTokens, apiTokenToProto(t))
		}
	}
	if full {
		resp.NextPageToken = tokens[len(tokens)-1].ID.String()
	}
	return resp, nil
}

func (s callerService) RevokeApiToken(ctx context.Context, req *pb.RevokeApiTokenRequest) (*pb.RevokeApiTokenResponse, error) {
	who := callerOf(ctx)
	// A narrowed administrator could otherwise lock out those above it.
	if err := who.Unbounded(); err != nil {
		return nil, err
	}
	id, err := uuid.Parse(req.GetId())
	if err != nil {
		return nil, &invalid{"id", "is not the ID of an API token"}
	}
	t, err := s.store.RevokeAPIToken(ctx, id, actorOf(ctx))
	if err != nil {
		return nil, err
	}
	s.callers.Forget(id)
	return &pb.RevokeApiTokenResponse{ApiToken: apiTokenToProto(t)}, nil
}

func (s callerService) WhoAmI(ctx context.Context, _ *pb.WhoAmIRequest) (*pb.WhoAmIResponse, error) {
	who := callerOf(ctx)
	resp := &pb.WhoAmIResponse{Caller: who.Name, ApiToken: apiTokenToProto(who.Token)}
	for _, method := range slices.Sorted(maps.Keys(s.methods)) {
		if who.MayCall(s.methods, method) == nil {
			resp.Methods = append(resp.Methods, strings.TrimPrefix(method, "/"))
		}
	}
	return resp, nil
}

func apiTokenToProto(t store.APIToken) *pb.ApiToken {
	out := &pb.ApiToken{
		Id: t.ID.String(), Name: t.Name, Roles: t.Roles, Keysets: t.Keysets, Zones: t.Zones, Scopes: t.Scopes, Dataplanes: t.Dataplanes,
		CreatedAt: timestamppb.New(t.CreatedAt), ExpiresAt: timestamppb.New(t.ExpiresAt),
		RevokedAt: timestamp(t.RevokedAt), CreatedBy: t.CreatedBy,
	}
	if t.MaxValidFor != 0 {
		out.MaxValidFor = durationpb.New(t.MaxValidFor)
	}
	return out
}
