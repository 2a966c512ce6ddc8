package service

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"strings"
	"time"

	"connectrpc.com/authn"
	"connectrpc.com/connect"
	"connectrpc.com/grpchealth"
	"connectrpc.com/grpcreflect"
	"google.golang.org/protobuf/proto"

	v1 "github.com/zonemint/zonemint/proto/zonemint/v1/zonemintv1connect"
	"github.com/zonemint/zonemint/service/caller"
	"github.com/zonemint/zonemint/store"
)

const (
	// maxBody bounds a request. A batch of 1,000 takes about a tenth of it.
	maxBody = 1 << 20
	// callTimeout bounds a call whose caller set no deadline. Making a keyset's
	// keys in a slow HSM takes longest.
	callTimeout     = 50 * time.Second
	requestIDHeader = "X-Request-Id"
	wellKnownJWKS   = "/.well-known/jwks.json"
	discovery       = "/.well-known/openid-configuration"
)

// Handler returns the public port: Connect, gRPC and gRPC-Web, the JWK sets and
// Kuma's endpoints. Only what is listed as open answers without a credential.
func (s *Service) Handler() http.Handler {
	rpc := http.NewServeMux()
	opts := []connect.HandlerOption{
		connect.WithInterceptors(edges{s}),
		connect.WithReadMaxBytes(maxBody), connect.WithCompressMinBytes(1024),
		connect.WithRecover(s.recovered),
	}
	rpc.Handle(v1.NewTokenServiceHandler(tokenService{s}, opts...))
	rpc.Handle(v1.NewKeyServiceHandler(keyService{s}, opts...))
	rpc.Handle(v1.NewRevocationServiceHandler(revocationService{s}, opts...))
	rpc.Handle(v1.NewAuditServiceHandler(auditService{s}, opts...))
	rpc.Handle(v1.NewCallerServiceHandler(callerService{s}, opts...))
	rpc.Handle(v1.NewLegacyKeyServiceHandler(legacyKeyService{s}, opts...))
	bounded := connect.WithReadMaxBytes(maxBody)
	reflector := grpcreflect.NewStaticReflector(serviceNames()...)
	rpc.Handle(grpcreflect.NewHandlerV1(reflector, bounded))
	rpc.Handle(grpcreflect.NewHandlerV1Alpha(reflector, bounded))

	mux := http.NewServeMux()
	calls := authn.NewMiddleware(s.authenticate).Wrap(rpc)
	mux.Handle("/", calls)
	mux.HandleFunc(v1.RevocationServiceWatchRevocationsProcedure, func(w http.ResponseWriter, r *http.Request) {
		calls.ServeHTTP(newLasting(w), r)
	})
	mux.Handle(grpchealth.NewHandler(grpchealth.NewStaticChecker(serviceNames()...), bounded)) // open
	s.handleKuma(mux)
	if s.cfg.Issuer != "" {
		mux.HandleFunc("GET "+discovery, s.serveDiscovery) // open
	}
	return s.ofKeysets(mux)
}

func serviceNames() []string {
	return []string{
		v1.TokenServiceName, v1.KeyServiceName, v1.RevocationServiceName, v1.AuditServiceName, v1.CallerServiceName,
		v1.LegacyKeyServiceName,
	}
}

// ofKeysets answers for the documents of keysets, and passes everything else on.
// Names of keysets have slashes, so the path is taken apart here and not by a
// pattern.
func (s *Service) ofKeysets(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		serve := s.serveJWKS // open
		name, ok := keysetOf(r.URL.Path, jwksDocument)
		if !ok {
			serve = s.serveRevocations
			name, ok = keysetOf(r.URL.Path, feedDocument)
		}
		switch {
		case !ok:
			next.ServeHTTP(w, r)
		case r.Method != http.MethodGet && r.Method != http.MethodHead:
			w.Header().Set("Allow", "GET, HEAD")
			http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
		default:
			serve(w, r, name)
		}
	})
}

// The documents of a keyset.
const (
	jwksDocument = "/jwks.json"
	feedDocument = "/revocations"
)

func keysetOf(path, document string) (string, bool) {
	if path == wellKnownJWKS {
		return DefaultKeyset, document == jwksDocument
	}
	name, ok := strings.CutPrefix(path, "/keysets/")
	if !ok {
		return "", false
	}
	return strings.CutSuffix(name, document)
}

func (s *Service) serveJWKS(w http.ResponseWriter, r *http.Request, name string) {
	ks, err := s.ring.Load().Keyset(name)
	if err != nil {
		http.Error(w, err.Error(), http.StatusNotFound)
		return
	}
	now, lease := s.clock.outlook()
	ks.Set.ServeFor(w, r, s.caching, ks.FreshFor(now, min(lease, s.cfg.MaxAge)))
}

// serveDiscovery answers with what of OpenID Connect Discovery 1.0 applies here:
// who issues and where the keys are.
func (s *Service) serveDiscovery(w http.ResponseWriter, _ *http.Request) {
	ks, err := s.ring.Load().Keyset(DefaultKeyset)
	if err != nil {
		http.Error(w, err.Error(), http.StatusNotFound)
		return
	}
	algs := map[string]bool{}
	var names []string
	for _, k := range ks.Public.Keys() {
		if !algs[k.Algorithm()] {
			algs[k.Algorithm()], names = true, append(names, k.Algorithm())
		}
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(map[string]any{ // the client is gone if it fails
		"issuer":                                s.cfg.Issuer,
		"jwks_uri":                              strings.TrimSuffix(s.cfg.Issuer, "/") + wellKnownJWKS,
		"id_token_signing_alg_values_supported": names,
		"response_types_supported":              []string{"id_token"},
		"subject_types_supported":               []string{"public"},
	})
}

// identity is what the middleware learns of a request before its body is read.
type identity struct {
	who     caller.Caller
	request string
}

// authenticate tells the caller and checks the table of methods. A path that is
// not in the table is refused like a method that the caller may not call, so
// nothing is reachable that nobody thought about.
func (s *Service) authenticate(ctx context.Context, r authn.Request) (any, error) {
	id, start := identity{request: newRequestID()}, time.Now()
	method := r.Procedure()
	who, err := s.whoCalls(ctx, r.Header(), method)
	if err == nil {
		id.who = who
		err = who.MayCall(s.methods, method)
	}
	if err != nil {
		label := method
		if _, known := s.methods[method]; !known {
			label = "unknown" // a label for every path that somebody tries would be without bound
		}
		s.metrics.called(ctx, label, start, err)
		return nil, s.edge(ctx, method, id.request, who, err)
	}
	return id, nil
}

// whoCalls tells the caller. While this replica has lost touch with the database
// it cannot issue, and says so without asking the database who it is.
func (s *Service) whoCalls(ctx context.Context, h http.Header, method string) (caller.Caller, error) {
	if issues(method) {
		if _, err := s.clock.stamp(); err != nil {
			return caller.Caller{}, err
		}
	}
	return s.callers.Authenticate(ctx, credential(h), issues(method))
}

// credential returns the Authorization header. Of several it makes one that is
// no good: a proxy in front may have gone by another one than the first.
func credential(h http.Header) string { return strings.Join(h.Values("Authorization"), ", ") }

// issues says whether a method's effect is a ledger row, whose transaction
// checks the API token again. Only these may go by a recent look at it.
func issues(method string) bool {
	switch method {
	case v1.TokenServiceIssueZoneTokenProcedure, v1.TokenServiceIssueDataplaneTokenProcedure,
		v1.TokenServiceIssueUserTokenProcedure, v1.TokenServiceIssueTokensProcedure:
		return true
	default:
		return false
	}
}

// callerOf returns who makes a request, requestID the request's ID. They are
// the only values that handlers take from a context.
func callerOf(ctx context.Context) caller.Caller {
	id, _ := authn.GetInfo(ctx).(identity)
	return id.who
}

func requestID(ctx context.Context) string {
	id, _ := authn.GetInfo(ctx).(identity)
	return id.request
}

// actorOf returns who makes a request, for the audit.
func actorOf(ctx context.Context) store.Actor {
	who := callerOf(ctx)
	return store.Actor{Name: who.Name, RequestID: requestID(ctx), TokenID: who.TokenID()}
}

func newRequestID() string {
	var b [8]byte
	rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// intercept validates every request and gives every error its outside form.
func (s *Service) intercept(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, req connect.AnyRequest) (connect.AnyResponse, error) {
		method := req.Spec().Procedure
		start := time.Now()
		ctx, cancel := context.WithTimeout(ctx, callTimeout)
		defer cancel()
		resp, err := s.validated(ctx, req, next)
		s.metrics.called(ctx, method, start, err)
		if err != nil {
			return nil, s.edge(ctx, method, requestID(ctx), callerOf(ctx), err)
		}
		resp.Header().Set("Cache-Control", "no-store") // it may be a token
		return resp, nil
	}
}

func (s *Service) validated(ctx context.Context, req connect.AnyRequest, next connect.UnaryFunc) (connect.AnyResponse, error) {
	if msg, ok := req.Any().(proto.Message); ok {
		if err := s.validator.Validate(msg); err != nil {
			return nil, err
		}
	}
	return next(ctx, req)
}
