package service

import (
	"encoding/json"
	"errors"
	"net/http"

	"connectrpc.com/connect"

	"github.com/zonemint/zonemint/service/profile"
)

// Faults of the request that Kuma answers without its error document.
var (
	errKumaNotJSON     = errors.New("the body is not a JSON object of the expected form")
	errKumaContentType = errors.New("the content type is not application/json")
)

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
	if after := retryAfter(err); after > 0 {
		w.Header().Set(retryAfterHeader, delaySeconds(after))
	}
	if doc.Status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", "Bearer")
	}
	writeKuma(w, doc.Status, doc)
}

func kumaErrorFor(err error, code connect.Code, text string) kumaError {
	doc := kumaError{Type: "/std-errors", Title: "Could not issue a token", Detail: text}
	if faults := kumaFaults(err); len(faults) > 0 {
		doc.Status, doc.Title, doc.Detail = http.StatusBadRequest, "Invalid request", "Resource is not valid"
		for _, f := range faults {
			doc.InvalidParameters = append(doc.InvalidParameters, kumaParameter{f.Field, f.Reason})
			doc.Causes = append(doc.Causes, kumaCause{f.Field, f.Reason})
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

// kumaFaults returns what an error says of single fields, under Kuma's names for
// them.
func kumaFaults(err error) []profile.Fault {
	if e, ok := errors.AsType[faulty](err); ok {
		return e
	}
	if e, ok := errors.AsType[*invalid](err); ok && e.field == "valid_for" {
		return []profile.Fault{{Field: "validFor", Reason: e.reason}}
	}
	return nil
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
