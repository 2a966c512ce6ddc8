package service

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/google/uuid"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/zonemint/zonemint/proto/zonemint/v1"
	"github.com/zonemint/zonemint/store"
)

// auditService implements zonemint.v1.AuditService.
type auditService struct{ *Service }

func (s auditService) ListIssuances(ctx context.Context, req *pb.ListIssuancesRequest) (*pb.ListIssuancesResponse, error) {
	f, err := s.ledgerFilter(callerOf(ctx), ledgerWish{
		keyset: req.GetKeyset(), serial: req.GetSerial(), subject: req.GetSubject(), caller: req.GetCaller(),
		after: req.GetIssuedAfter(), before: req.GetIssuedBefore(),
	})
	if err != nil {
		return nil, err
	}
	f.Live = req.GetLive()
	before, err := pageBefore(req.GetPageToken())
	if err != nil {
		return nil, err
	}
	size := pageSize(req.GetPageSize())
	rows, err := search(ctx, s.Service, func() ([]store.Issuance, error) { return s.store.Issuances(ctx, f, before, size) })
	if err != nil {
		return nil, err
	}
	resp := &pb.ListIssuancesResponse{Issuances: make([]*pb.Issuance, len(rows))}
	for i, row := range rows {
		if resp.Issuances[i], err = s.issuanceToProto(row); err != nil {
			return nil, err
		}
	}
	if len(rows) == size {
		resp.NextPageToken = rows[size-1].JTI.String()
	}
	return resp, nil
}

func (s auditService) ListAuditEvents(ctx context.Context, req *pb.ListAuditEventsRequest) (*pb.ListAuditEventsResponse, error) {
	// Events are about everything, and do not say which keyset or zone.
	if err := callerOf(ctx).Unbounded(); err != nil {
		return nil, err
	}
	f := store.AuditFilter{ActionPrefix: req.GetActionPrefix(), Actor: req.GetActor()}
	var err error
	if f.After, err = optionalTime("after", req.GetAfter()); err != nil {
		return nil, err
	}
	if f.Before, err = optionalTime("before", req.GetBefore()); err != nil {
		return nil, err
	}
	before, err := pageBefore(req.GetPageToken())
	if err != nil {
		return nil, err
	}
	size := pageSize(req.GetPageSize())
	events, err := s.store.AuditEvents(ctx, f, before, size)
	if err != nil {
		return nil, err
	}
	resp := &pb.ListAuditEventsResponse{Events: make([]*pb.AuditEvent, len(events))}
	for i, e := range events {
		resp.Events[i] = &pb.AuditEvent{
			Id: e.ID.String(), At: timestamppb.New(e.At), Actor: e.Actor, Action: e.Action, Target: e.Target,
			Detail: e.Detail, RequestId: e.RequestID,
		}
	}
	if len(events) == size {
		resp.NextPageToken = events[size-1].ID.String()
	}
	return resp, nil
}

// pageBefore returns the ID that a page of a list comes after, newest first.
func pageBefore(pageToken string) (uuid.UUID, error) {
	if pageToken == "" {
		return uuid.Max, nil
	}
	id, err := uuid.Parse(pageToken)
	if err != nil {
		return id, errPageToken()
	}
	return id, nil
}

func (s auditService) issuanceToProto(row store.Issuance) (*pb.Issuance, error) {
	out := &pb.Issuance{
		Jti: row.JTI.String(), Keyset: row.KeysetID.String(), Serial: int32(row.Serial), Subject: row.Subject, Caller: row.Caller,
		IssuedAt: timestamppb.New(row.IssuedAt), ExpiresAt: timestamppb.New(row.ExpiresAt),
	}
	// A keyset that is left out of the ring for a fault has no name that could
	// be trusted. Its tokens are listed by its ID.
	if ks, err := s.ring.Load().KeysetByID(row.KeysetID); err == nil {
		out.Keyset = ks.Name
	}
	if err := json.Unmarshal([]byte(row.Scopes), &out.Scopes); err != nil {
		return nil, fmt.Errorf("scopes of ledger row %s: %w", row.JTI, err)
	}
	return out, nil
}
