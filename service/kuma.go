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

	v1 "github.com/zonemint/zonemint/proto/zonemint/v1/zonemintv1connect"
	"github.com/zonemint/zonemint/service/caller"
	"github.com/zonemint/zonemint/service/profile"
)

// KumaIdentity is what GET / says. kumactl refuses a server whose product is not
// its own, and warns about one with another version.
type KumaIdentity struct {
	Product string // "Kuma" or "Kong Mesh"; "Kuma" if it is empty
	Version string
	// BasePath is where Kuma's API is served besides the root, for clients whose
	// address has a path: "/kuma".
	BasePath string
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

// kumaEndpoint is one of the three that issue tokens.
type kumaEndpoint struct {
	path   string
	method string // whose roles may call it
	// checkFirst: a request is looked at before the caller's right to make it. So
	// it is in Kuma for dataplane tokens, and for no other.
	checkFirst bool
	read       func(io.Reader) (wanted, error)
}

func kumaEndpoints() []kumaEndpoint {
	return []kumaEndpoint{
		{"/tokens/zone", v1.TokenServiceIssueZoneTokenProcedure, false, readKuma[kumaZoneRequest]},
		{"/tokens/dataplane", v1.TokenServiceIssueDataplaneTokenProcedure, true, readKuma[kumaDataplaneRequest]},
		{"/tokens/user", v1.TokenServiceIssueUserTokenProcedure, false, readKuma[kumaUserRequest]},
	}
}

// handleKuma adds Kuma's API, at the root and under its base path.
func (s *Service) handleKuma(mux *http.ServeMux) {
	bases := []string{""}
	if base := strings.TrimSuffix(s.cfg.Kuma.BasePath, "/"); base != "" {
		bases = append(bases, base)
		mux.HandleFunc("GET "+base, s.serveIdentity) // open, as kumactl asks for it
	}
	for _, base := range bases {
		mux.HandleFunc("GET "+base+"/{$}", s.serveIdentity) // open
		for _, e := range kumaEndpoints() {
			mux.HandleFunc("POST "+base+e.path, func(w http.ResponseWriter, r *http.Request) { s.serveKuma(w, r, e) })
			mux.HandleFunc(base+e.path, kumaMethodNotAllowed)
		}
	}
}

// serveKuma issues a token as kumactl asks for it.
func (s *Service) serveKuma(w http.ResponseWriter, r *http.Request, e kumaEndpoint) {
	start, request := time.Now(), newRequestID()
	w.Header().Set(requestIDHeader, request)
	w.Header().Set("Cache-Control", "no-store")
	who, out, err := s.kumaToken(w, r, e)
	s.metrics.called(r.Context(), e.path, start, err)
	if err != nil {
		code, text := explain(err)
		s.logFault(r.Context(), "POST "+e.path, request, who, code, err)
		s.kumaFail(w, err, code, text)
		return
	}
	w.Header().Set("Content-Type", "text/plain")
	_, _ = io.WriteString(w, out.token) // the client is gone if it fails
}

func (s *Service) kumaToken(w http.ResponseWriter, r *http.Request, e kumaEndpoint) (caller.Caller, issued, error) {
	ctx, cancel := context.WithTimeout(r.Context(), callTimeout)
	defer cancel()
	who, err := s.whoCalls(ctx, r.Header, e.method)
	if err != nil {
		return who, issued{}, err
	}
	may := who.MayCall(s.methods, e.method)
	if may != nil && !e.checkFirst {
		return who, issued{}, may
	}
	want, err := e.wanted(w, r)
	if err == nil {
		err = may
	}
	if err != nil {
		return who, issued{}, err
	}
	out, err := s.issue(ctx, who, want)
	return who, out, err
}

// wanted returns what a request asks for, if nothing is wrong with it.
func (e kumaEndpoint) wanted(w http.ResponseWriter, r *http.Request) (wanted, error) {
	if media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || media != "application/json" {
		return wanted{}, errKumaContentType
	}
	return e.read(http.MaxBytesReader(w, r.Body, maxBody))
}

// kumaRequest is the body of a request.
type kumaRequest interface {
	wish() profile.Wish
	lifetime() string // as time.ParseDuration reads it; empty: the keyset's default
}

// readKuma reads a request of one kind and returns everything that is wrong with
// it at once.
func readKuma[R kumaRequest](body io.Reader) (wanted, error) {
	var req R
	if err := decodeStrict(body, &req); err != nil {
		return wanted{}, err
	}
	w := wanted{Wish: req.wish()}
	faults := w.Faults()
	if text := req.lifetime(); text != "" {
		d, err := time.ParseDuration(text)
		switch {
		case err != nil:
			faults = append(faults, profile.Fault{Field: "validFor", Reason: "is not a duration such as \"24h\""})
		case d < time.Second:
			faults = append(faults, profile.Fault{Field: "validFor", Reason: "must be at least 1s"})
		}
		w.validFor = d
	}
	if len(faults) > 0 {
		return w, faulty(faults)
	}
	return w, nil
}

type kumaZoneRequest struct {
	Zone     string   `json:"zone"`
	Scope    []string `json:"scope"`
	ValidFor string   `json:"validFor"`
}

func (r kumaZoneRequest) wish() profile.Wish { return profile.Zone{Zone: r.Zone, Scope: r.Scope} }
func (r kumaZoneRequest) lifetime() string   { return r.ValidFor }

type kumaDataplaneRequest struct {
	Name     string              `json:"name"`
	Mesh     string              `json:"mesh"`
	Tags     map[string][]string `json:"tags"`
	Type     string              `json:"type"`
	Workload string              `json:"workload"`
	ValidFor string              `json:"validFor"`
}

func (r kumaDataplaneRequest) wish() profile.Wish {
	return profile.Dataplane{Mesh: r.Mesh, Name: r.Name, Tags: r.Tags, Type: r.Type, Workload: r.Workload}
}
func (r kumaDataplaneRequest) lifetime() string { return r.ValidFor }

type kumaUserRequest struct {
	Name     string   `json:"name"`
	Groups   []string `json:"groups"`
	ValidFor string   `json:"validFor"`
}

func (r kumaUserRequest) wish() profile.Wish { return profile.User{Name: r.Name, Groups: r.Groups} }
func (r kumaUserRequest) lifetime() string   { return r.ValidFor }

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
