package service

import (
	"context"
	"fmt"

	pb "github.com/zonemint/zonemint/proto/zonemint/v1"
	"github.com/zonemint/zonemint/service/caller"
	"github.com/zonemint/zonemint/store"
)

// CheckRevocations is for whoever keeps a list on behalf of everybody: callers who
// are narrowed to zones have no business with it.
func (s revocationService) CheckRevocations(ctx context.Context, req *pb.CheckRevocationsRequest) (*pb.CheckRevocationsResponse, error) {
	who := callerOf(ctx)
	ks, err := s.visible(who, req.GetKeyset())
	if err != nil {
		return nil, err
	}
	if who.NarrowedToZones() {
		return nil, fmt.Errorf("%w: this API token is for some zones only", caller.ErrForbidden)
	}
	standings, err := s.store.Standings(ctx, ks.ID, req.GetJtis())
	if err != nil {
		return nil, err
	}
	resp := &pb.CheckRevocationsResponse{States: make([]pb.RevocationState, len(standings))}
	for i, st := range standings {
		resp.States[i] = standingToProto(st)
	}
	return resp, nil
}

func standingToProto(s store.Standing) pb.RevocationState {
	switch s {
	case store.StandingRevoked:
		return pb.RevocationState_REVOCATION_STATE_REVOKED
	case store.StandingLifted:
		return pb.RevocationState_REVOCATION_STATE_LIFTED
	case store.StandingExpired:
		return pb.RevocationState_REVOCATION_STATE_EXPIRED
	case store.StandingIssued:
		return pb.RevocationState_REVOCATION_STATE_ISSUED
	default:
		return pb.RevocationState_REVOCATION_STATE_UNKNOWN
	}
}
