// Package awskmsdouble stands in for AWS Key Management Service in tests: a server on
// a loopback port that speaks AWS JSON 1.1, checks signatures (SigV4), holds real
// keys and signs with them, and refuses what the service refuses. It is written from
// the API Reference and the Developer Guide of KMS ("Key states of AWS KMS keys",
// "AWS KMS eventual consistency", "Throttling AWS KMS requests", "Key policies"), and
// from "Create a signed AWS API request". It knows nothing of zonemint.
package awskmsdouble

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"io"
	"maps"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

// Options shape a server. The zero value is one.
type Options struct {
	Listen          string           // "127.0.0.1:0"
	Region          string           // "eu-central-1"
	Account         string           // "111122223333"
	AccessKeyID     string           // random
	SecretAccessKey string           // random
	SessionToken    string           // none: credentials are long-lived
	Now             func() time.Time // time.Now
}

func (o Options) complete() Options {
	or := func(s *string, otherwise string) {
		if *s == "" {
			*s = otherwise
		}
	}
	or(&o.Listen, "127.0.0.1:0")
	or(&o.Region, "eu-central-1")
	or(&o.Account, "111122223333")
	or(&o.AccessKeyID, "AKIA"+rand.Text()[:16])
	or(&o.SecretAccessKey, rand.Text()+rand.Text()[:14])
	if o.Now == nil {
		o.Now = time.Now
	}
	return o
}

// Server is one account in one Region.
type Server struct {
	opts Options
	http *http.Server
	addr string
	done chan struct{} // closed when http has ended

	mu       sync.Mutex
	keys     map[string]*key // by ID
	aliases  map[string]*alias
	denied   map[string]bool // actions that the caller's IAM policies lack
	limits   map[string]*bucket
	faults   []*Fault
	calls    map[string]int
	delays   Delays
	quota    int           // of keys; 0 for none
	tracking time.Time     // since when uses are counted
	stalled  chan struct{} // closed when requests go on; nil while they do
}

// Start starts a server. The caller closes it.
func Start(opts Options) (*Server, error) {
	opts = opts.complete()
	l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", opts.Listen)
	if err != nil {
		return nil, err
	}
	s := &Server{
		opts: opts, addr: l.Addr().String(), done: make(chan struct{}),
		keys: map[string]*key{}, aliases: map[string]*alias{}, denied: map[string]bool{}, limits: map[string]*bucket{}, calls: map[string]int{},
	}
	s.http = &http.Server{Handler: s, ReadHeaderTimeout: time.Minute}
	go func() {
		defer close(s.done)
		_ = s.http.Serve(l)
	}()
	return s, nil
}

// Close ends the server and cuts all connections.
func (s *Server) Close() error {
	err := s.http.Close()
	<-s.done
	return err
}

// URL is the endpoint.
func (s *Server) URL() string { return "http://" + s.addr }

// Options returns what the server was started with, and what it has chosen itself.
func (s *Server) Options() Options { return s.opts }

// Env is the environment that lets the AWS SDK in, and keeps it from looking for
// credentials elsewhere.
func (s *Server) Env() map[string]string {
	return map[string]string{ //nolint:gosec // names of variables, and credentials that let nobody in anywhere else
		"AWS_ACCESS_KEY_ID": s.opts.AccessKeyID, "AWS_SECRET_ACCESS_KEY": s.opts.SecretAccessKey, "AWS_SESSION_TOKEN": s.opts.SessionToken,
		"AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": "/dev/null", "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
		"AWS_PROFILE": "", "AWS_REGION": "", "AWS_DEFAULT_REGION": "", "AWS_ENDPOINT_URL": "", "AWS_ENDPOINT_URL_KMS": "",
	}
}

// Calls returns how many requests have arrived, by operation, whatever came of them.
func (s *Server) Calls() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.calls)
}

// operation does what its name says, for a caller who has been authenticated.
type operation func(*Server, []byte) (any, *Exception)

// operations is the table of all that are served.
func operations() map[string]operation {
	return map[string]operation{
		"CreateKey": createKey, "DescribeKey": describeKey, "ListKeys": listKeys,
		"TagResource": tagResource, "ListResourceTags": listResourceTags,
		"CreateAlias": createAlias, "ListAliases": listAliases,
		"GetPublicKey": getPublicKey, "Sign": sign, "GetKeyLastUsage": getKeyLastUsage,
		"EnableKey": enableKey, "DisableKey": disableKey,
		"ScheduleKeyDeletion": scheduleKeyDeletion, "CancelKeyDeletion": cancelKeyDeletion,
	}
}

// ServeHTTP implements [http.Handler].
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	const mostBytes = 1 << 20
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, mostBytes))
	if err != nil {
		return
	}
	op, _ := strings.CutPrefix(r.Header.Get("X-Amz-Target"), "TrentService.")
	if !s.arrive(r.Context(), op) {
		return
	}
	f := s.take(op)
	if f.Delay > 0 {
		select {
		case <-time.After(f.Delay):
		case <-r.Context().Done():
			return
		}
	}
	if f.Cut {
		panic(http.ErrAbortHandler)
	}
	if f.Status != 0 {
		w.WriteHeader(f.Status)
		_, _ = io.WriteString(w, f.Body)
		return
	}
	answer, refused := s.perform(r, op, body, f)
	if f.Lost {
		panic(http.ErrAbortHandler)
	}
	s.write(w, f, answer, refused)
}

// arrive counts a request and holds it while the server is stalled.
func (s *Server) arrive(ctx context.Context, op string) bool {
	s.mu.Lock()
	s.calls[op]++
	gate := s.stalled
	s.mu.Unlock()
	if gate == nil {
		return true
	}
	select {
	case <-gate:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}

func (s *Server) perform(r *http.Request, op string, body []byte, f Fault) (any, *Exception) {
	do, known := operations()[op]
	switch {
	case r.Method != http.MethodPost || r.URL.Path != "/" || !known:
		return nil, &Exception{Type: "UnknownOperationException", Status: http.StatusBadRequest}
	case r.Header.Get("Content-Type") != contentType:
		return nil, refuse("SerializationException", "the content type is not "+contentType)
	}
	if e := s.authenticate(r, body); e != nil {
		return nil, e
	}
	if e := s.throttle(op); e != nil {
		return nil, e
	}
	if f.Error != nil {
		return nil, f.Error
	}
	return do(s, body)
}

func requestID() string {
	var raw [16]byte
	_, _ = rand.Read(raw[:])
	h := hex.EncodeToString(raw[:])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}
