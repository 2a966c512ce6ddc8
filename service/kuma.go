package service

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"strings"
	"time"

	"connectrpc.com/connect"

	v1 "github.com/zonemint/zonemint/proto/zonemint/v1/zonemintv1connect"
	"github.com/zonemint/zonemint/service/caller"
	"github.com/zonemint/zonemint/service/keyring"
	"github.com/zonemint/zonemint/token"
)

// KumaIdentity is what GET / says. kumactl refuses a server whose product is not
// its own, and warns about one with another version.
type KumaIdentity struct {
	Product string // "Kuma" or "Kong Mesh"; "Kuma" if it is empty
	Version string
}

// serveIdentity answers kumactl's first request.
func (s *Service) serveIdentity(w http.ResponseWriter, _ *http.Request) {
	product := s.cfg.Kuma.Product
	if product == "" {
		product = "Kuma"
	}
	writeKuma(w, http.StatusOK, struct {
		Hostname   string `json:"hostname"`
		Product    string `json:"product"`
		Version    string `json:"version"`
		InstanceID string `json:"instanceId"`
		ClusterID  string `json:"clusterId"`
		GUI        string `json:"gui"`
	}{s.cfg.Name, product, s.cfg.Kuma.Version, s.replica.String(), "", ""})
}

// kumaZoneTokenRequest is the body of POST /tokens/zone.
type kumaZoneTokenRequest struct {
	Zone     string   `json:"zone"`
	Scope    []string `json:"scope"`
	ValidFor string   `json:"validFor"`
}

// serveKumaZoneToken is POST /tokens/zone as kumactl calls it. As in Kuma the
// caller's right comes first and the request's faults second.
func (s *Service) serveKumaZoneToken(w http.ResponseWriter, r *http.Request) {
	start, request := time.Now(), newRequestID()
	w.Header().Set(requestIDHeader, request)
	w.Header().Set("Cache-Control", "no-store")
	who, out, err := s.kumaZoneToken(w, r)
	s.metrics.called(r.Context(), "/tokens/zone", start, err)
	if err != nil {
		code, text := explain(err)
		s.logFault(r.Context(), "POST /tokens/zone", request, who, code, err)
		s.kumaFail(w, err, code, text)
		return
	}
	w.Header().Set("Content-Type", "text/plain")
	_, _ = io.WriteString(w, out.token) // the client is gone if it fails
}

// Faults of the request that Kuma answers without its error document.
var (
	errKumaNotJSON     = errors.New("the body is not a JSON object of the expected form")
	errKumaContentType = errors.New("the content type is not application/json")
)

func (s *Service) kumaZoneToken(w http.ResponseWriter, r *http.Request) (caller.Caller, issued, error) {
	ctx, cancel := context.WithTimeout(r.Context(), callTimeout)
	defer cancel()
	who, err := s.whoCalls(ctx, r.Header, v1.TokenServiceIssueZoneTokenProcedure)
	if err != nil {
		return who, issued{}, err
	}
	if err := who.MayCall(s.methods, v1.TokenServiceIssueZoneTokenProcedure); err != nil {
		return who, issued{}, err
	}
	if media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || media != "application/json" {
		return who, issued{}, errKumaContentType
	}
	var req kumaZoneTokenRequest
	if err := decodeStrict(http.MaxBytesReader(w, r.Body, maxBody), &req); err != nil {
		return who, issued{}, err
	}
	out, err := s.issueKumaZone(ctx, who, req)
	return who, out, err
}

func (s *Service) issueKumaZone(ctx context.Context, who caller.Caller, req kumaZoneTokenRequest) (issued, error) {
	wish := zoneWish{zone: req.Zone, scopes: req.Scope}
	if faults := req.check(&wish.validFor); len(faults) > 0 {
		return issued{}, &kumaInvalidError{faults}
	}
	return s.issue(ctx, who, func(ring *keyring.Snapshot) (draft, error) {
		d, err := zoneDraft(ring, who, wish)
		if e, ok := errors.AsType[*invalid](err); ok && e.field == "valid_for" {
			return d, &kumaInvalidError{[]kumaFault{{"validFor", e.reason}}}
		}
		return d, err
	})
}

// maxKumaScopes bounds how many faults an answer can list. There are three scopes.
const maxKumaScopes = 16

// check returns everything that is wrong with a request. It is stricter than
// Kuma, which issues tokens for any zone name, scope and lifetime.
func (r kumaZoneTokenRequest) check(validFor *time.Duration) []kumaFault {
	var faults []kumaFault
	switch {
	case r.Zone == "":
		faults = append(faults, kumaFault{"zone", "cannot be empty"})
	case !token.ValidZoneName(r.Zone):
		faults = append(faults, kumaFault{"zone", "must be 1 to 63 of a-z, 0-9 and '-', beginning and ending with a letter or digit"})
	}
	switch {
	case r.Scope != nil && len(r.Scope) == 0:
		faults = append(faults, kumaFault{"scope", "cannot be empty"})
	case len(r.Scope) > maxKumaScopes:
		return append(faults, kumaFault{"scope", "has too many entries"})
	}
	seen := map[string]bool{}
	for _, s := range r.Scope {
		switch {
		case !token.ValidScope(s):
			faults = append(faults, kumaFault{"scope", "unknown scope \"" + clip(s) + "\", want cp, ingress or egress"})
		case seen[s]:
			faults = append(faults, kumaFault{"scope", "has " + s + " twice"})
		}
		seen[s] = true
	}
	if r.ValidFor != "" {
		d, err := time.ParseDuration(r.ValidFor)
		switch {
		case err != nil:
			faults = append(faults, kumaFault{"validFor", "is not a duration such as \"24h\""})
		case d < time.Second:
			faults = append(faults, kumaFault{"validFor", "must be at least 1s"})
		}
		*validFor = d
	}
	return faults
}

func clip(s string) string {
	if len(s) > 32 {
		return strings.ToValidUTF8(s[:32], "") + "…"
	}
	return s
}

// decodeStrict reads one JSON value and nothing after it.
func decodeStrict(r io.Reader, into any) error {
	dec := json.NewDecoder(r)
	if err := dec.Decode(into); err != nil {
		if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
			return &invalid{"body", "is larger than 1 MiB"}
		}
		return errKumaNotJSON
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errKumaNotJSON
	}
	return nil
}

// kumaFault is one thing that is wrong with a request.
type kumaFault struct{ field, reason string }

// kumaInvalidError is a request with faults, for Kuma's error document.
type kumaInvalidError struct{ faults []kumaFault }

func (e *kumaInvalidError) Error() string {
	var parts []string
	for _, f := range e.faults {
		parts = append(parts, f.field+": "+f.reason)
	}
	return strings.Join(parts, "; ")
}

// kumaError is Kuma's error document.
type kumaError struct {
	Type              string          `json:"type"`
	Status            int             `json:"status"`
	Title             string          `json:"title"`
	Detail            string          `json:"detail"`
	InvalidParameters []kumaParameter `json:"invalid_parameters,omitempty"`
	Details           string          `json:"details"`
	Causes            []kumaCause     `json:"causes,omitempty"`
}

type kumaParameter struct {
	Field  string `json:"field"`
	Reason string `json:"reason"`
}

type kumaCause struct {
	Field   string `json:"field"`
	Message string `json:"message"`
}

func (s *Service) kumaFail(w http.ResponseWriter, err error, code connect.Code, text string) {
	switch {
	case errors.Is(err, errKumaNotJSON):
		w.WriteHeader(http.StatusBadRequest) // an empty body, as Kuma has it
		return
	case errors.Is(err, errKumaContentType):
		http.Error(w, "415: Unsupported Media Type", http.StatusUnsupportedMediaType)
		return
	}
	doc := kumaErrorFor(err, code, text)
	if doc.Status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", "Bearer")
	}
	writeKuma(w, doc.Status, doc)
}

func kumaErrorFor(err error, code connect.Code, text string) kumaError {
	doc := kumaError{Type: "/std-errors", Title: "Could not issue a token", Detail: text}
	if e, ok := errors.AsType[*kumaInvalidError](err); ok {
		doc.Status, doc.Title, doc.Detail = http.StatusBadRequest, "Invalid request", "Resource is not valid"
		for _, f := range e.faults {
			doc.InvalidParameters = append(doc.InvalidParameters, kumaParameter{f.field, f.reason})
			doc.Causes = append(doc.Causes, kumaCause{f.field, f.reason})
		}
		doc.Details = doc.Detail
		return doc
	}
	switch code {
	case connect.CodeUnauthenticated:
		doc.Status, doc.Title, doc.Detail = http.StatusUnauthorized, "Invalid authentication data", "Unauthenticated"
	case connect.CodePermissionDenied:
		doc.Status, doc.Title = http.StatusForbidden, "Access Denied"
	case connect.CodeNotFound, connect.CodeFailedPrecondition:
		doc.Status, doc.Title = http.StatusNotFound, "Signing Key not found"
	case connect.CodeInvalidArgument:
		doc.Status, doc.Title = http.StatusBadRequest, "Invalid request"
	case connect.CodeResourceExhausted:
		doc.Status = http.StatusTooManyRequests
	case connect.CodeUnavailable, connect.CodeDeadlineExceeded, connect.CodeCanceled:
		doc.Status = http.StatusServiceUnavailable
	default:
		doc.Status, doc.Detail = http.StatusInternalServerError, "Internal Server Error"
	}
	doc.Details = doc.Detail
	return doc
}

func kumaMethodNotAllowed(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Allow", http.MethodPost)
	http.Error(w, "405: Method Not Allowed", http.StatusMethodNotAllowed)
}

func writeKuma(w http.ResponseWriter, status int, doc any) {
	body, err := json.MarshalIndent(doc, "", " ")
	if err != nil {
		http.Error(w, "internal error", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(body) // the client is gone if it fails
}
