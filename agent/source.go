package agent

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"time"

	pb "github.com/zonemint/zonemint/proto/zonemint/v1"
	"github.com/zonemint/zonemint/token"
)

// Source is where tokens come from, and what they have to be.
type Source struct {
	// Issue returns a new token. Its error is a Connect error, or wraps one, if the
	// server gave it.
	Issue func(ctx context.Context) (raw string, err error)

	// Fits says in what a token with these claims, a JSON object, is not what is
	// wanted; nil if it is. Its errors must not quote the token.
	Fits func(claims []byte) error

	// ValidFor is the lifetime that Issue asks for; 0 if it leaves that to the
	// server.
	ValidFor time.Duration
}

// Zone returns the source of zone tokens that are issued upon this request.
func Zone(issue func(context.Context, *pb.IssueZoneTokenRequest) (*pb.IssueZoneTokenResponse, error), req *pb.IssueZoneTokenRequest) Source {
	wanted := req.GetScopes()
	if len(wanted) == 0 {
		wanted = token.DefaultScopes()
	}
	return Source{
		Issue: func(ctx context.Context) (string, error) {
			resp, err := issue(ctx, req)
			return resp.GetToken(), err
		},
		Fits:     func(claims []byte) error { return fitsZone(claims, req.GetZone(), wanted) },
		ValidFor: req.GetValidFor().AsDuration(),
	}
}

func fitsZone(claims []byte, zone string, scopes []string) error {
	var has struct {
		Zone  string
		Scope []string
	}
	if json.Unmarshal(claims, &has) != nil {
		return errNoToken
	}
	switch {
	case has.Zone != zone:
		return differs("zone", has.Zone, zone)
	case !sameSet(has.Scope, scopes):
		return differs("scope", has.Scope, scopes)
	default:
		return nil
	}
}

// Dataplane returns the source of dataplane tokens that are issued upon this
// request.
func Dataplane(issue func(context.Context, *pb.IssueDataplaneTokenRequest) (*pb.IssueDataplaneTokenResponse, error), req *pb.IssueDataplaneTokenRequest) Source {
	return Source{
		Issue: func(ctx context.Context) (string, error) {
			resp, err := issue(ctx, req)
			return resp.GetToken(), err
		},
		Fits:     func(claims []byte) error { return fitsDataplane(claims, req) },
		ValidFor: req.GetValidFor().AsDuration(),
	}
}

func fitsDataplane(claims []byte, req *pb.IssueDataplaneTokenRequest) error {
	var has struct {
		Name, Mesh, Workload string
		Tags                 map[string][]string
	}
	if json.Unmarshal(claims, &has) != nil {
		return errNoToken
	}
	tags := make(map[string][]string, len(req.GetTags()))
	for name, values := range req.GetTags() {
		tags[name] = values.GetValues()
	}
	switch {
	case has.Mesh != req.GetMesh():
		return differs("mesh", has.Mesh, req.GetMesh())
	case has.Name != req.GetName():
		return differs("name", has.Name, req.GetName())
	case has.Workload != req.GetWorkload():
		return differs("workload", has.Workload, req.GetWorkload())
	case !maps.EqualFunc(has.Tags, tags, sameSet):
		return differs("tags", has.Tags, tags)
	default:
		return nil
	}
}

func sameSet(a, b []string) bool {
	return slices.Equal(slices.Compact(slices.Sorted(slices.Values(a))), slices.Compact(slices.Sorted(slices.Values(b))))
}
