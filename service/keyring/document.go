package keyring

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/zonemint/zonemint/token"
)

// Document is a JWK set as it is served, rendered once.
type Document struct {
	body []byte
	// As values of headers:
	etag, length, mediaType, origin []string
}

func newDocument(set *token.KeySet) (*Document, error) {
	body, err := json.Marshal(set)
	if err != nil {
		return nil, fmt.Errorf("rendering the JWK set: %w", err)
	}
	body = append(body, '\n')
	sum := sha256.Sum256(body)
	return &Document{
		body: body, etag: []string{`"` + base64.RawURLEncoding.EncodeToString(sum[:16]) + `"`},
		length:    []string{strconv.Itoa(len(body))},
		mediaType: []string{"application/jwk-set+json"}, // RFC 7517 section 8.5
		origin:    []string{"*"},                        // public keys are for everybody
	}, nil
}

// Bytes returns the document. It must not be changed.
func (d *Document) Bytes() []byte { return d.body }

// ServeFor answers a GET or HEAD request for the set, which verifiers may go on
// using for bound at the most, by the rules of caching. An answer of 304 makes
// what they have fresh again by the same rules. Header values are assigned and
// not copied: this is the path that every verifier of the mesh takes.
func (d *Document) ServeFor(w http.ResponseWriter, r *http.Request, caching *Caching, bound time.Duration) {
	h := w.Header()
	h["Etag"] = d.etag
	h["Cache-Control"] = caching.pick(bound)
	h["Access-Control-Allow-Origin"] = d.origin
	if d.matches(r.Header["If-None-Match"]) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	h["Content-Type"] = d.mediaType
	h["Content-Length"] = d.length
	if r.Method != http.MethodHead {
		_, _ = w.Write(d.body) // the client is gone if it fails
	}
}

// matches says whether an If-None-Match header (RFC 9110 section 13.1.2) names
// the document. Proxies that compress make the tag weak, caches that hold
// several versions send a list; a quoted tag cannot be a part of another one.
func (d *Document) matches(header []string) bool {
	for _, v := range header {
		if v == "*" || strings.Contains(v, d.etag[0]) {
			return true
		}
	}
	return false
}
