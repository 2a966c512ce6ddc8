package controlplane

import (
	"encoding/json"
	"net/http"
	"time"
)

// readOnlyText is what a control plane on Kubernetes says to writers.
const readOnlyText = "On Kubernetes you cannot change the state of Kuma resources with 'kumactl apply' or via the HTTP API." +
	" As a best practice, you should always be using 'kubectl apply' instead." +
	" You can still use 'kumactl' or the HTTP API to make read-only operations. On Universal this limitation does not apply.\n"

// faults are what goes wrong, and the ways in which control planes differ.
type faults struct {
	queue    []fault
	readOnly bool
	old      bool
	slow     time.Duration
	pageSize int
	intruder map[Ref]func(now string) string
}

// fault is what one request gets instead of its answer.
type fault struct {
	status  int  // 0: no answer, the connection ends
	applied bool // the request was served all the same
	writes  bool // only for a write
}

func (f fault) answer(w http.ResponseWriter) {
	if f.status == 0 {
		panic(http.ErrAbortHandler)
	}
	refuse(w, f.status, "Internal Server Error", "Internal Server Error")
}

// nextFault takes the first one that is due.
func (c *ControlPlane) nextFault(method string) *fault {
	if len(c.queue) == 0 || c.queue[0].writes && method == http.MethodGet {
		return nil
	}
	f := c.queue[0]
	c.queue = c.queue[1:]
	return &f
}

func (c *ControlPlane) add(n int, f fault) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for range n {
		c.queue = append(c.queue, f)
	}
}

// FailNext answers the next n requests with the status, and does nothing else.
func (c *ControlPlane) FailNext(n, status int) { c.add(n, fault{status: status}) }

// FailWrites answers the next n writes with the status. If applied is set it applies
// them all the same.
func (c *ControlPlane) FailWrites(n, status int, applied bool) {
	c.add(n, fault{status: status, applied: applied, writes: true})
}

// LoseReplies applies the next n writes, and breaks the connection instead of
// answering.
func (c *ControlPlane) LoseReplies(n int) { c.add(n, fault{applied: true, writes: true}) }

// Break breaks the connection of the next n requests.
func (c *ControlPlane) Break(n int) { c.add(n, fault{}) }

// Pending returns how many faults are still to happen.
func (c *ControlPlane) Pending() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.queue)
}

// ReadOnly makes the API refuse writes, as on Kubernetes.
func (c *ControlPlane) ReadOnly(on bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.readOnly = on
}

// Old makes the API behave like one before Kuma 2.7: it drops labels, and lists
// do not know the parameter "name".
func (c *ControlPlane) Old(on bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.old = on
}

// Slow delays every answer.
func (c *ControlPlane) Slow(by time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.slow = by
}

// PageSize bounds the pages of lists.
func (c *ControlPlane) PageSize(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pageSize = n
}

// Intrude lets somebody else change a secret right after it was read the next time,
// so that a write that follows is based on what is not there any more.
func (c *ControlPlane) Intrude(ref Ref, change func(now string) string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.intruder == nil {
		c.intruder = map[Ref]func(string) string{}
	}
	c.intruder[ref] = change
}

// intrude is called after a read.
func (c *ControlPlane) intrude(ref Ref) {
	change, ok := c.intruder[ref]
	if !ok {
		return
	}
	delete(c.intruder, ref)
	s := c.secrets[ref]
	s.Data, s.Modified = change(s.Data), time.Now()
	c.secrets[ref] = s
}

// recorder holds an answer back.
type recorder struct {
	header http.Header
	status int
	body   []byte
}

func (r *recorder) Header() http.Header { return r.header }

func (r *recorder) WriteHeader(status int) { r.status = status }

func (r *recorder) Write(p []byte) (int, error) {
	r.body = append(r.body, p...)
	return len(p), nil
}

func (r *recorder) send(w http.ResponseWriter) {
	for name, values := range r.header {
		w.Header()[name] = values
	}
	w.WriteHeader(r.status)
	_, _ = w.Write(r.body) // the client is gone if it fails
}

func reply(w http.ResponseWriter, status int, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(body) // the client is gone if it fails
}

// refuse answers with an error in the form of Kuma.
func refuse(w http.ResponseWriter, status int, title, detail string) {
	reply(w, status, map[string]any{"type": "/std-errors", "status": status, "title": title, "detail": detail, "details": detail})
}
