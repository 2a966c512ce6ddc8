package controlplane

import (
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// Cluster is the Secrets of a Kubernetes cluster. It is an [http.Handler], and safe
// for concurrent use.
type Cluster struct {
	token string

	mu         sync.Mutex
	secrets    map[string]CoreSecret // by namespace/name
	version    int
	fail       int // how many requests still fail
	status     int // and with which status
	intruder   map[string]func(s *CoreSecret)
	writes     int
	violations []string
}

// CoreSecret is a Secret of a cluster.
type CoreSecret struct {
	APIVersion string            `json:"apiVersion"`
	Kind       string            `json:"kind"`
	Metadata   Metadata          `json:"metadata"`
	Type       string            `json:"type"`
	Data       map[string][]byte `json:"data,omitempty"`
}

// Metadata is what a cluster knows of a Secret besides its data.
type Metadata struct {
	Namespace       string            `json:"namespace"`
	Name            string            `json:"name"`
	UID             string            `json:"uid,omitempty"`
	ResourceVersion string            `json:"resourceVersion,omitempty"`
	Labels          map[string]string `json:"labels,omitempty"`
	Annotations     map[string]string `json:"annotations,omitempty"`
}

// NewCluster returns a cluster without Secrets, whose user has that token.
func NewCluster(token string) *Cluster {
	return &Cluster{token: token, secrets: map[string]CoreSecret{}, intruder: map[string]func(*CoreSecret){}}
}

// FailNext answers the next n requests with the status.
func (c *Cluster) FailNext(n, status int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fail, c.status = n, status
}

// Intrude lets somebody else change a Secret right after it was read the next time.
func (c *Cluster) Intrude(namespace, name string, change func(s *CoreSecret)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.intruder[namespace+"/"+name] = change
}

// Set puts a Secret there as somebody else would.
func (c *Cluster) Set(s CoreSecret) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.keep(s)
}

// Secret returns a Secret.
func (c *Cluster) Secret(namespace, name string) (CoreSecret, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s, ok := c.secrets[namespace+"/"+name]
	return s, ok
}

// Writes returns how many writes through the API were applied.
func (c *Cluster) Writes() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.writes
}

// Violations returns what was written that must never be, in the order of time.
func (c *Cluster) Violations() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.violations)
}

// keep stores a new version.
func (c *Cluster) keep(s CoreSecret) CoreSecret {
	c.version++
	s.APIVersion, s.Kind = "v1", "Secret"
	s.Metadata.ResourceVersion = strconv.Itoa(c.version)
	if s.Metadata.UID == "" {
		s.Metadata.UID = "uid-" + strconv.Itoa(c.version)
	}
	c.secrets[s.key()] = s
	return s
}

func (s CoreSecret) key() string { return s.Metadata.Namespace + "/" + s.Metadata.Name }

// ServeHTTP implements [http.Handler].
func (c *Cluster) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if r.Header.Get("Authorization") != "Bearer "+c.token {
		status(w, http.StatusUnauthorized, "Unauthorized")
		return
	}
	if c.fail > 0 {
		c.fail--
		status(w, c.status, "InternalError")
		return
	}
	path := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	if len(path) < 5 || len(path) > 6 || path[0] != "api" || path[1] != "v1" || path[2] != "namespaces" || path[4] != "secrets" {
		status(w, http.StatusNotFound, "NotFound")
		return
	}
	if len(path) == 5 {
		switch r.Method {
		case http.MethodGet:
			c.list(w, r, path[3])
		case http.MethodPost:
			c.create(w, r, path[3])
		default:
			status(w, http.StatusMethodNotAllowed, "MethodNotAllowed")
		}
		return
	}
	c.one(w, r, path[3]+"/"+path[5])
}

func (c *Cluster) list(w http.ResponseWriter, r *http.Request, namespace string) {
	label, value, selective := strings.Cut(r.URL.Query().Get("labelSelector"), "=")
	items := []CoreSecret{}
	for _, key := range slices.Sorted(maps.Keys(c.secrets)) {
		s := c.secrets[key]
		if s.Metadata.Namespace == namespace && (!selective || s.Metadata.Labels[label] == value) {
			items = append(items, s)
		}
	}
	reply(w, http.StatusOK, map[string]any{
		"apiVersion": "v1", "kind": "SecretList", "metadata": map[string]string{"resourceVersion": strconv.Itoa(c.version)}, "items": items,
	})
}

func (c *Cluster) create(w http.ResponseWriter, r *http.Request, namespace string) {
	s, ok := c.read(w, r)
	if !ok {
		return
	}
	s.Metadata.Namespace, s.Metadata.UID = namespace, ""
	if _, there := c.secrets[s.key()]; there {
		status(w, http.StatusConflict, "AlreadyExists")
		return
	}
	c.judge(s)
	c.writes++
	reply(w, http.StatusCreated, c.keep(s))
}

func (c *Cluster) one(w http.ResponseWriter, r *http.Request, key string) {
	now, there := c.secrets[key]
	if !there {
		status(w, http.StatusNotFound, "NotFound")
		return
	}
	switch r.Method {
	case http.MethodGet:
		reply(w, http.StatusOK, now)
		if change := c.intruder[key]; change != nil {
			delete(c.intruder, key)
			now.Data = maps.Clone(now.Data)
			change(&now)
			c.keep(now)
		}
	case http.MethodPut:
		c.update(w, r, now)
	case http.MethodDelete:
		c.remove(w, r, now)
	default:
		status(w, http.StatusMethodNotAllowed, "MethodNotAllowed")
	}
}

func (c *Cluster) update(w http.ResponseWriter, r *http.Request, now CoreSecret) {
	s, ok := c.read(w, r)
	switch {
	case !ok:
	case s.Metadata.ResourceVersion == "":
		c.violations = append(c.violations, now.key()+": an update that does not say what it was based on")
		status(w, http.StatusConflict, "Conflict")
	case s.Metadata.ResourceVersion != now.Metadata.ResourceVersion:
		status(w, http.StatusConflict, "Conflict")
	case s.Type != now.Type:
		status(w, http.StatusUnprocessableEntity, "Invalid") // types do not change
	default:
		c.judge(s)
		c.writes++
		s.Metadata.UID = now.Metadata.UID
		reply(w, http.StatusOK, c.keep(s))
	}
}

func (c *Cluster) remove(w http.ResponseWriter, r *http.Request, now CoreSecret) {
	var options struct {
		Preconditions struct {
			UID             *string `json:"uid"`
			ResourceVersion *string `json:"resourceVersion"`
		} `json:"preconditions"`
	}
	body, err := io.ReadAll(r.Body)
	if err == nil && len(body) > 0 {
		err = json.Unmarshal(body, &options)
	}
	p := options.Preconditions
	switch {
	case err != nil:
		status(w, http.StatusBadRequest, "BadRequest")
	case p.ResourceVersion == nil && p.UID == nil:
		c.violations = append(c.violations, now.key()+": a deletion that does not say what it was based on")
		status(w, http.StatusBadRequest, "BadRequest")
	case p.ResourceVersion != nil && *p.ResourceVersion != now.Metadata.ResourceVersion, p.UID != nil && *p.UID != now.Metadata.UID:
		status(w, http.StatusConflict, "Conflict")
	default:
		if fault := judgeName(refOf(now)); fault != "" {
			c.violations = append(c.violations, fmt.Sprintf("%s: deleted, though %s", now.key(), fault))
		}
		c.writes++
		delete(c.secrets, now.key())
		reply(w, http.StatusOK, map[string]any{"apiVersion": "v1", "kind": "Status", "status": "Success"})
	}
}

func (c *Cluster) read(w http.ResponseWriter, r *http.Request) (CoreSecret, bool) {
	var s CoreSecret
	if err := json.NewDecoder(r.Body).Decode(&s); err != nil || s.Metadata.Name == "" {
		status(w, http.StatusBadRequest, "BadRequest")
		return s, false
	}
	return s, true
}

// refOf returns the secret of a control plane that a core Secret is.
func refOf(s CoreSecret) Ref {
	if s.Type == "system.kuma.io/secret" {
		return Ref{Mesh: s.Metadata.Labels["kuma.io/mesh"], Name: s.Metadata.Name}
	}
	return Ref{Name: s.Metadata.Name}
}

// judge looks at a write as a control plane in that namespace would.
func (c *Cluster) judge(s CoreSecret) {
	fault := judge(refOf(s), string(s.Data["value"]))
	if s.Type != "system.kuma.io/global-secret" && s.Type != "system.kuma.io/secret" {
		fault = "a control plane overlooks the type " + s.Type
	}
	if fault != "" {
		c.violations = append(c.violations, s.key()+": "+fault)
	}
}

// status answers with an error in the form of Kubernetes.
func status(w http.ResponseWriter, code int, reason string) {
	reply(w, code, map[string]any{
		"apiVersion": "v1", "kind": "Status", "status": "Failure", "reason": reason, "code": code, "message": "the double says " + reason,
	})
}

// Kubeconfig returns the kubeconfig of a user with that token, of a cluster with
// that certificate.
func Kubeconfig(url, token string, cert *x509.Certificate) ([]byte, error) {
	type object = map[string]any
	authority := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})
	return json.Marshal(object{
		"apiVersion": "v1", "kind": "Config", "current-context": "it",
		"clusters": []object{{"name": "it", "cluster": object{"server": url, "certificate-authority-data": authority}}},
		"users":    []object{{"name": "it", "user": object{"token": token}}},
		"contexts": []object{{"name": "it", "context": object{"cluster": "it", "user": "it"}}},
	})
}
