package gcpkmsdouble

import (
	"context"
	"net/url"
	"path"
	"slices"
	"strings"

	"cloud.google.com/go/kms/apiv1/kmspb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
)

// intercept is what every request goes through, in the order of a front end and then
// the service: the credential, the routing, the fields, the quota. Handlers look at
// permissions, since those are of the resource.
func (s *Server) intercept(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	op := path.Base(info.FullMethod)
	s.mu.Lock()
	s.calls[op]++
	s.mu.Unlock()
	f := s.fault(op)
	if err := s.wait(ctx, f); err != nil {
		return nil, err
	}
	if (f.Err != nil || f.Cut) && !f.Apply {
		return nil, s.fail(ctx, f)
	}
	asked, _ := req.(proto.Message)
	if f.Asked != nil {
		f.Asked(asked)
	}
	resp, err := s.admitted(ctx, op, asked, handler)
	if f.Err != nil || f.Cut {
		return nil, s.fail(ctx, f)
	}
	if err == nil && f.Answer != nil {
		changed, _ := resp.(proto.Message)
		changed = proto.Clone(changed)
		f.Answer(changed)
		return changed, nil
	}
	return resp, err
}

func (s *Server) fail(ctx context.Context, f Fault) error {
	if f.Cut {
		return s.cutOff(ctx)
	}
	return f.Err
}

func (s *Server) admitted(ctx context.Context, op string, req proto.Message, handler grpc.UnaryHandler) (any, error) {
	if err := s.authenticate(ctx, op); err != nil {
		return nil, err
	}
	if err := s.route(ctx, req); err != nil {
		return nil, err
	}
	if err := known(op, req); err != nil {
		return nil, err
	}
	if !s.withinQuota(op) {
		return nil, exhausted(op)
	}
	return handler(ctx, req)
}

func (s *Server) withinQuota(op string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.limits[op]
	return b == nil || b.take(s.opts.Now())
}

// resource is what a request is about, by the field that its routing goes by.
func resource(req proto.Message) (field, name string) {
	switch req := req.(type) {
	case interface{ GetParent() string }:
		return "parent", req.GetParent()
	case *kmspb.UpdateCryptoKeyVersionRequest:
		return "crypto_key_version.name", req.GetCryptoKeyVersion().GetName()
	case *kmspb.UpdateCryptoKeyRequest:
		return "crypto_key.name", req.GetCryptoKey().GetName()
	case interface{ GetName() string }:
		return "name", req.GetName()
	default:
		return "", ""
	}
}

// route sends a request to a location by its header alone, and refuses it there if
// it concerns another one ("Using gRPC with Cloud KMS").
func (s *Server) route(ctx context.Context, req proto.Message) error {
	field, name := resource(req)
	sent := "global"
	md, _ := metadata.FromIncomingContext(ctx)
	for _, header := range md.Get("x-goog-request-params") {
		values, err := url.ParseQuery(header)
		if err != nil {
			continue
		}
		if l := location(values.Get(field)); slices.Contains(s.locations, l) {
			sent = l
		}
	}
	if concerns := location(name); concerns != "" && concerns != sent {
		return misrouted(concerns, sent)
	}
	return nil
}

// location of a resource's name; empty if it has none.
func location(name string) string {
	parts := strings.Split(name, "/")
	if len(parts) < 4 || parts[0] != "projects" || parts[2] != "locations" {
		return ""
	}
	return parts[3]
}
