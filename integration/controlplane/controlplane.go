// Package controlplane has doubles of what zonemint writes public keys and
// revocations to: the secrets API of a global control plane of Kuma on Universal,
// and the Secrets of a Kubernetes cluster. They behave like the real ones, fail on
// demand, and remember every write that a control plane would choke on.
package controlplane

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Ref names a secret. Mesh is empty for a GlobalSecret.
type Ref struct{ Mesh, Name string }

func (r Ref) String() string { return strings.TrimPrefix(r.Mesh+"/"+r.Name, "/") }

// Secret is what is kept of a secret.
type Secret struct {
	Data              string
	Labels            map[string]string
	Created, Modified time.Time
}

// Write is a write that was applied.
type Write struct {
	Ref    Ref
	Method string
	At     time.Time
}

// ControlPlane is the secrets API of a global control plane. It is an
// [http.Handler], and safe for concurrent use.
type ControlPlane struct {
	token string

	mu         sync.Mutex
	secrets    map[Ref]Secret
	meshes     map[string]bool
	writes     []Write
	violations []string
	faults
}

// New returns a control plane with these meshes, whose administrator has that token.
func New(token string, meshes ...string) *ControlPlane {
	c := &ControlPlane{token: token, secrets: map[Ref]Secret{}, meshes: map[string]bool{}}
	for _, m := range meshes {
		c.meshes[m] = true
	}
	return c
}

// ServeHTTP implements [http.Handler].
func (c *ControlPlane) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	slow := c.slow
	c.mu.Unlock()
	select {
	case <-time.After(slow):
	case <-r.Context().Done():
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	var after *fault
	if f := c.nextFault(r.Method); f != nil {
		if !f.applied {
			f.answer(w)
			return
		}
		after = f
	}
	rec := &recorder{header: http.Header{}, status: http.StatusOK}
	c.serve(rec, r)
	if after != nil {
		after.answer(w)
		return
	}
	rec.send(w)
}

func (c *ControlPlane) serve(w http.ResponseWriter, r *http.Request) {
	if !c.mayPass(w, r) {
		return
	}
	path := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	switch {
	case len(path) == 1 && path[0] == "global-secrets" && r.Method == http.MethodGet:
		c.list(w, r, "")
	case len(path) == 3 && path[0] == "meshes" && path[2] == "secrets" && r.Method == http.MethodGet:
		c.list(w, r, path[1])
	case len(path) == 2 && path[0] == "global-secrets":
		c.one(w, r, Ref{Name: path[1]})
	case len(path) == 4 && path[0] == "meshes" && path[2] == "secrets":
		c.one(w, r, Ref{Mesh: path[1], Name: path[3]})
	default:
		refuse(w, http.StatusNotFound, "Not Found", "404: Page Not Found")
	}
}

func (c *ControlPlane) mayPass(w http.ResponseWriter, r *http.Request) bool {
	switch r.Header.Get("Authorization") {
	case "Bearer " + c.token:
		return true
	case "":
		refuse(w, http.StatusForbidden, "Access Denied", `user "mesh-system:anonymous/mesh-system:unauthenticated" cannot access the resource of type "GlobalSecret"`)
	default:
		refuse(w, http.StatusUnauthorized, "Invalid authentication data", "Unauthenticated")
	}
	return false
}

// resource is a secret in the API's form.
type resource struct {
	Type             string            `json:"type"`
	Mesh             string            `json:"mesh,omitempty"`
	Name             string            `json:"name"`
	CreationTime     time.Time         `json:"creationTime,omitzero"`
	ModificationTime time.Time         `json:"modificationTime,omitzero"`
	Labels           map[string]string `json:"labels,omitempty"`
	Data             []byte            `json:"data"`
}

func toResource(ref Ref, s Secret) resource {
	r := resource{
		Type: "GlobalSecret", Mesh: ref.Mesh, Name: ref.Name, Labels: s.Labels, Data: []byte(s.Data),
		CreationTime: s.Created, ModificationTime: s.Modified,
	}
	if ref.Mesh != "" {
		r.Type = "Secret"
	}
	return r
}

func (c *ControlPlane) list(w http.ResponseWriter, r *http.Request, mesh string) {
	q := r.URL.Query()
	size, offset := 100, 0
	var err error
	if q.Has("size") {
		if size, err = strconv.Atoi(q.Get("size")); err != nil || size < 1 || size > 1000 {
			refuse(w, http.StatusBadRequest, "Could not retrieve resources", "Invalid page size")
			return
		}
	}
	if c.pageSize > 0 {
		size = min(size, c.pageSize)
	}
	if q.Has("offset") {
		if offset, err = strconv.Atoi(q.Get("offset")); err != nil || offset < 0 {
			refuse(w, http.StatusBadRequest, "Could not retrieve resources", "Invalid offset")
			return
		}
	}
	var all []resource
	for ref, s := range c.secrets {
		if ref.Mesh == mesh && (c.old || strings.Contains(ref.Name, q.Get("name"))) {
			all = append(all, toResource(ref, s))
		}
	}
	slices.SortFunc(all, func(a, b resource) int { return strings.Compare(a.Name, b.Name) })
	page := struct {
		Total int        `json:"total"`
		Items []resource `json:"items"`
		Next  *string    `json:"next"`
	}{Total: len(all), Items: all[min(offset, len(all)):min(offset+size, len(all))]}
	if offset+size < len(all) {
		q.Set("offset", strconv.Itoa(offset+size))
		// The address is what the control plane thinks it is.
		next := (&url.URL{Scheme: "http", Host: "cp.invalid:5681", Path: r.URL.Path, RawQuery: q.Encode()}).String()
		page.Next = &next
	}
	reply(w, http.StatusOK, page)
}

func (c *ControlPlane) one(w http.ResponseWriter, r *http.Request, ref Ref) {
	switch r.Method {
	case http.MethodGet:
		s, ok := c.secrets[ref]
		if !ok {
			refuse(w, http.StatusNotFound, "Could not retrieve a resource", "Not found")
		} else {
			reply(w, http.StatusOK, toResource(ref, s))
		}
		c.intrude(ref)
	case http.MethodPut:
		c.put(w, r, ref)
	case http.MethodDelete:
		c.remove(w, ref)
	default:
		http.Error(w, "405: Method Not Allowed", http.StatusMethodNotAllowed)
	}
}

func (c *ControlPlane) put(w http.ResponseWriter, r *http.Request, ref Ref) {
	if c.readOnly {
		refuse(w, http.StatusMethodNotAllowed, readOnlyText, "Method not allowed")
		return
	}
	if r.Header.Get("Content-Type") != "application/json" {
		http.Error(w, "415: Unsupported Media Type", http.StatusUnsupportedMediaType)
		return
	}
	var body resource
	dec := json.NewDecoder(r.Body)
	dec.DisallowUnknownFields()
	if err := dec.Decode(&body); err != nil {
		c.violate(ref, "the body is not JSON of the API: "+err.Error())
		refuse(w, http.StatusBadRequest, "Could not process a resource", "invalid JSON")
		return
	}
	want := toResource(ref, Secret{})
	if body.Type != want.Type || body.Name != want.Name || body.Mesh != want.Mesh {
		c.violate(ref, "type, name or mesh of the body is not that of the URL")
		refuse(w, http.StatusBadRequest, "Could not process a resource", "Resource is not valid")
		return
	}
	if ref.Mesh != "" && !c.meshes[ref.Mesh] {
		refuse(w, http.StatusBadRequest, "Could not create a resource", "Mesh is not found")
		return
	}
	c.judge(ref, string(body.Data))
	old, there := c.secrets[ref]
	now := time.Now()
	s := Secret{Data: string(body.Data), Labels: body.Labels, Created: now, Modified: now}
	if c.old {
		s.Labels = nil
	}
	status := http.StatusCreated
	if there {
		s.Created, status = old.Created, http.StatusOK
	}
	c.secrets[ref] = s
	c.writes = append(c.writes, Write{ref, http.MethodPut, now})
	reply(w, status, struct{}{})
}

func (c *ControlPlane) remove(w http.ResponseWriter, ref Ref) {
	if c.readOnly {
		refuse(w, http.StatusMethodNotAllowed, readOnlyText, "Method not allowed")
		return
	}
	if _, ok := c.secrets[ref]; !ok {
		refuse(w, http.StatusNotFound, "Could not delete a resource", "Not found")
		return
	}
	if fault := judgeName(ref); fault != "" {
		c.violate(ref, "deleted, though "+fault)
	}
	delete(c.secrets, ref)
	c.writes = append(c.writes, Write{ref, http.MethodDelete, time.Now()})
}

// The state, for tests.

// Set puts a secret there as somebody else would.
func (c *ControlPlane) Set(ref Ref, data string, labels map[string]string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.secrets[ref] = Secret{Data: data, Labels: maps.Clone(labels), Created: time.Now(), Modified: time.Now()}
}

// Drop deletes a secret as somebody else would.
func (c *ControlPlane) Drop(ref Ref) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.secrets, ref)
}

// Secret returns a secret.
func (c *ControlPlane) Secret(ref Ref) (Secret, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s, ok := c.secrets[ref]
	return s, ok
}

// Names returns the names of all secrets.
func (c *ControlPlane) Names() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []string
	for ref := range c.secrets {
		out = append(out, ref.String())
	}
	slices.Sort(out)
	return out
}

// AddMesh makes a mesh.
func (c *ControlPlane) AddMesh(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.meshes[name] = true
}

// Writes returns the writes through the API that were applied, in their order.
func (c *ControlPlane) Writes() []Write {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.writes)
}

// Violations returns what was written that must never be, in the order of time.
func (c *ControlPlane) Violations() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.violations)
}

func (c *ControlPlane) judge(ref Ref, data string) {
	if fault := judge(ref, data); fault != "" {
		c.violate(ref, fault)
	}
}

func (c *ControlPlane) violate(ref Ref, fault string) {
	c.violations = append(c.violations, fmt.Sprintf("%s: %s", ref, fault))
}
