package kubernetes_test

import (
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/zonemint/zonemint/kubernetes"
)

// double stands for the API of a cluster: it has Secrets and nothing else.
type double struct {
	t   *testing.T
	url string
	ca  []byte

	mu       sync.Mutex
	version  int
	secrets  map[string]map[string]any // by namespace/name
	requests []string
	tokens   []string
	answer   http.HandlerFunc // instead of the Secrets, if there is one
}

func newDouble(t *testing.T) *double {
	d := &double{t: t, version: 100, secrets: map[string]map[string]any{}}
	s := httptest.NewUnstartedServer(d)
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS() // credentials are not sent without
	t.Cleanup(s.Close)
	d.url = s.URL
	d.ca = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	return d
}

// client returns one that a kubeconfig leads to the double. The namespace of its
// context is "mesh".
func (d *double) client() *kubernetes.Client {
	d.t.Helper()
	c, err := kubernetes.New(kubernetes.Config{Kubeconfig: d.kubeconfig("mesh"), Context: "test"})
	if err != nil {
		d.t.Fatal(err)
	}
	return c
}

// kubeconfig writes one with a token in a file, and returns its path.
func (d *double) kubeconfig(namespace string) string {
	d.t.Helper()
	dir := d.t.TempDir()
	path := filepath.Join(dir, "config")
	write(d.t, filepath.Join(dir, "token"), "first")
	write(d.t, path, fmt.Sprintf(`{"apiVersion": "v1", "kind": "Config",
		"clusters": [{"name": "c", "cluster": {"server": %q, "certificate-authority-data": %q}}],
		"users": [{"name": "u", "user": {"tokenFile": "token"}}],
		"contexts": [{"name": "test", "context": {"cluster": "c", "user": "u", "namespace": %q}}]}`, d.url, base64.StdEncoding.EncodeToString(d.ca), namespace))
	return path
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (d *double) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.requests = append(d.requests, r.Method+" "+r.URL.Path)
	d.tokens = append(d.tokens, r.Header.Get("Authorization"))
	if d.answer != nil {
		d.answer(w, r)
		return
	}
	parts := strings.Split(strings.TrimPrefix(r.URL.Path, "/api/v1/namespaces/"), "/")
	if len(parts) < 2 || parts[1] != "secrets" {
		d.t.Errorf("a request for %s", r.URL.Path)
		return
	}
	switch {
	case len(parts) == 3:
		d.one(w, r, parts[0]+"/"+parts[2])
	case r.Method == http.MethodGet:
		d.list(w, r, parts[0])
	default:
		d.create(w, r, parts[0])
	}
}

// list answers with pages of at most two.
func (d *double) list(w http.ResponseWriter, r *http.Request, namespace string) {
	names := slices.DeleteFunc(slices.Sorted(maps.Keys(d.secrets)), func(name string) bool {
		selector := r.FormValue("labelSelector")
		k, v, _ := strings.Cut(selector, "=")
		labels, _ := metadata(d.secrets[name])["labels"].(map[string]any)
		return !strings.HasPrefix(name, namespace+"/") || selector != "" && labels[k] != v
	})
	from, _ := strconv.Atoi(r.FormValue("continue"))
	if limit := r.FormValue("limit"); limit == "" || limit == "0" {
		d.t.Error("a list without a limit")
	}
	to, next := min(from+2, len(names)), ""
	if to < len(names) {
		next = strconv.Itoa(to)
	}
	items := make([]any, 0, 2)
	for _, n := range names[from:to] {
		items = append(items, d.secrets[n])
	}
	reply(w, http.StatusOK, map[string]any{"apiVersion": "v1", "kind": "SecretList", "metadata": map[string]any{"continue": next}, "items": items})
}

func (d *double) create(w http.ResponseWriter, r *http.Request, namespace string) {
	body := d.body(r)
	name := namespace + "/" + metadata(body)["name"].(string)
	if d.secrets[name] != nil {
		status(w, http.StatusConflict, "AlreadyExists", "secrets already exists")
		return
	}
	d.put(name, body)
	reply(w, http.StatusCreated, body)
}

func (d *double) one(w http.ResponseWriter, r *http.Request, name string) {
	had := d.secrets[name]
	if had == nil {
		status(w, http.StatusNotFound, "NotFound", "secrets not found")
		return
	}
	switch r.Method {
	case http.MethodGet:
		reply(w, http.StatusOK, had)
	case http.MethodPut:
		body := d.body(r)
		if metadata(body)["resourceVersion"] != metadata(had)["resourceVersion"] {
			status(w, http.StatusConflict, "Conflict", "the object has been modified")
			return
		}
		d.put(name, body)
		reply(w, http.StatusOK, body)
	case http.MethodDelete:
		preconditions, _ := d.body(r)["preconditions"].(map[string]any)
		if preconditions["resourceVersion"] != metadata(had)["resourceVersion"] {
			status(w, http.StatusConflict, "Conflict", "precondition failed")
			return
		}
		delete(d.secrets, name)
		reply(w, http.StatusOK, map[string]any{"apiVersion": "v1", "kind": "Status", "status": "Success"})
	}
}

func (d *double) body(r *http.Request) map[string]any {
	var body map[string]any
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
		d.t.Error(err)
	}
	return body
}

// put keeps a Secret as the next version.
func (d *double) put(name string, body map[string]any) {
	d.version++
	namespace, _, _ := strings.Cut(name, "/")
	m := metadata(body)
	m["resourceVersion"], m["namespace"] = strconv.Itoa(d.version), namespace
	d.secrets[name] = body
}

// touch makes a new version of a Secret, as somebody else's change would.
func (d *double) touch(name string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.put(name, d.secrets[name])
}

func metadata(body map[string]any) map[string]any { return body["metadata"].(map[string]any) }

func reply(w http.ResponseWriter, code int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(body)
}

func status(w http.ResponseWriter, code int, reason, message string) {
	reply(w, code, map[string]any{"apiVersion": "v1", "kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": message})
}
