package vault_test

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/zonemint/zonemint/backends/vault"
	"github.com/zonemint/zonemint/signer"
)

// double answers what a test says. What a real server answers the other tests
// find out: this one is for what those cannot be brought to say.
type double struct {
	*httptest.Server
	mu     sync.Mutex
	seen   []seen
	answer http.HandlerFunc
}

type seen struct {
	method, path, token, namespace, body string
}

const agentAnswer = `{"data":{"signature":"vault:v1:c2lnbmF0dXJl"}}`

func startDouble(t *testing.T, answer http.HandlerFunc) *double {
	t.Helper()
	d := &double{answer: answer}
	d.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		d.mu.Lock()
		d.seen = append(d.seen, seen{r.Method, r.URL.Path, r.Header.Get("X-Vault-Token"), r.Header.Get("X-Vault-Namespace"), string(body)})
		d.mu.Unlock()
		d.answer(w, r)
	}))
	t.Cleanup(d.Close)
	return d
}

func (d *double) requests() []seen {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.seen)
}

func says(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

func spec(alg signer.Algorithm) signer.Spec {
	return signer.Spec{Keyset: "dataplane/default", Serial: 3, Label: "zonemint-" + strings.Repeat("a", 26), Algorithm: alg}
}

// handle opens a key of a server whose answers are made up.
func handle(t *testing.T, b *vault.Backend, alg signer.Algorithm) signer.Handle {
	t.Helper()
	s := spec(alg)
	h, err := b.Open(t.Context(), s, signer.Ref(fmt.Sprintf("%s.dataplane_default.3.%s:1", s.Label, alg)))
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func digest(alg signer.Algorithm) []byte {
	if alg.Hash() == 0 {
		return []byte("header.payload")
	}
	return make([]byte, alg.Hash().Size())
}

// TestRequests pins what is asked for each algorithm: what is left out the
// server chooses, and it chooses PSS.
func TestRequests(t *testing.T) {
	zeros := func(n int) string { return base64.StdEncoding.EncodeToString(make([]byte, n)) }
	for alg, want := range map[signer.Algorithm]struct{ path, body string }{
		signer.RS256: {"/sha2-256", `{"input":"` + zeros(32) + `","key_version":1,"prehashed":true,"signature_algorithm":"pkcs1v15"}`},
		signer.RS384: {"/sha2-384", `{"input":"` + zeros(48) + `","key_version":1,"prehashed":true,"signature_algorithm":"pkcs1v15"}`},
		signer.RS512: {"/sha2-512", `{"input":"` + zeros(64) + `","key_version":1,"prehashed":true,"signature_algorithm":"pkcs1v15"}`},
		signer.PS256: {"/sha2-256", `{"input":"` + zeros(32) + `","key_version":1,"prehashed":true,"signature_algorithm":"pss","salt_length":"hash"}`},
		signer.ES256: {"/sha2-256", `{"input":"` + zeros(32) + `","key_version":1,"prehashed":true,"marshaling_algorithm":"asn1"}`},
		signer.ES384: {"/sha2-384", `{"input":"` + zeros(48) + `","key_version":1,"prehashed":true,"marshaling_algorithm":"asn1"}`},
		signer.EdDSA: {"", `{"input":"aGVhZGVyLnBheWxvYWQ=","key_version":1}`},
	} {
		t.Run(alg.String(), func(t *testing.T) {
			d := startDouble(t, says(200, agentAnswer))
			h := handle(t, open(t, vault.Options{Address: d.URL, Auth: "agent", Mount: "/a/transit/", Namespace: "team/mesh"}), alg)
			sig, err := h.Sign(t.Context(), alg, digest(alg))
			if err != nil || string(sig) != "signature" {
				t.Fatalf("%q, %v", sig, err)
			}
			path := "/v1/a/transit/sign/" + spec(alg).Label + ".dataplane_default.3." + alg.String() + want.path
			wanted := []seen{{"POST", path, "", "team/mesh", want.body}}
			if got := d.requests(); !slices.Equal(got, wanted) {
				t.Errorf("sent %+v\nwant %+v", got, wanted)
			}
		})
	}
}

func TestErrorKinds(t *testing.T) {
	said := func(words string) string { return fmt.Sprintf(`{"errors":[%q]}`, words) }
	for name, tc := range map[string]struct {
		status int
		body   string
		want   signer.Code
	}{
		"sealed":                   {503, said("Vault is sealed"), signer.Unavailable},
		"no active node":           {500, said("local node not active but active cluster node not found"), signer.Unavailable},
		"a proxy without upstream": {502, "<html>Bad Gateway</html>", signer.Unavailable},
		"a performance standby":    {473, "", signer.Unavailable},
		"a standby that lags":      {412, said("required index state not present"), signer.Unavailable},
		"quota":                    {429, said("request path \"transit/sign\": rate limit quota exceeded"), signer.Throttled},
		"policy":                   {403, said("1 error occurred:\n\t* permission denied\n\n"), signer.Denied},
		"no such key":              {400, said("signing key not found"), signer.NotFound},
		"no such version":          {500, said("1 error occurred:\n\t* requested version for signing is higher than the latest key version\n\n"), signer.NotFound},
		"archived version":         {400, said("no such key version"), signer.NotFound},
		"soft-deleted in OpenBao":  {500, said("refusing to use soft-deleted key"), signer.NotFound},
		"an old version is barred": {500, said("1 error occurred:\n\t* requested version for signing is less than the minimum encryption key version\n\n"), signer.Denied},
		"no engine":                {404, said(`no handler for route "transit/sign/x". route entry not found.`), signer.Misconfigured},
		"another engine":           {404, said("1 error occurred:\n\t* unsupported path\n\n"), signer.Misconfigured},
		"a bad request":            {400, said("invalid hash algorithm"), signer.Misconfigured},
		"plain HTTP to TLS":        {400, "Client sent an HTTP request to an HTTPS server.\n", signer.Misconfigured},
		"another signer":           {200, `{"data":{"signature":"vault:v2:c2lnbmF0dXJl"}}`, signer.Corrupt},
		"no version":               {200, `{"data":{"signature":"c2lnbmF0dXJl"}}`, signer.Corrupt},
		"an empty signature":       {200, `{"data":{"signature":"vault:v1:"}}`, signer.Corrupt},
		"not base64":               {200, `{"data":{"signature":"vault:v1:c2ln!"}}`, signer.Corrupt},
		"nothing":                  {200, ``, signer.Corrupt},
		"a web page":               {200, "<html>hello hvs.secret</html>", signer.Corrupt},
		"half an answer":           {200, `{"data":{"signature":"vault:v1:c2ln`, signer.Unavailable},
	} {
		t.Run(name, func(t *testing.T) {
			d := startDouble(t, says(tc.status, tc.body))
			b := open(t, vault.Options{Address: d.URL, Auth: "agent"})
			h := handle(t, b, signer.RS256)
			_, err := h.Sign(t.Context(), signer.RS256, digest(signer.RS256))
			if err == nil || b.Code(err) != tc.want || b.Code(fmt.Errorf("wrapped: %w", err)) != tc.want {
				t.Errorf("%v: code %q, want %q", err, b.Code(err), tc.want)
			}
			if text := fmt.Sprint(err); strings.Contains(text, "hvs.") || strings.Contains(text, "\n") {
				t.Errorf("the text of the error: %q", text)
			}
			if n := len(d.requests()); n != 1 {
				t.Errorf("%d requests, want 1: nothing is tried again here", n)
			}
		})
	}
}

// TestNoEngine shows that an engine that is not there is told from a key that is not.
func TestNoEngine(t *testing.T) {
	for body, want := range map[string]signer.Code{
		`{"errors":[]}`: -1,
		`{"errors":["no handler for route \"transit/keys\". route entry not found."]}`: signer.Misconfigured,
	} {
		b := open(t, vault.Options{Address: startDouble(t, says(404, body)).URL, Auth: "agent"})
		_, findErr := b.Find(t.Context(), spec(signer.RS256))
		listErr := b.List(t.Context(), func(signer.Labelled) error { return nil })
		for _, err := range []error{findErr, listErr} {
			if (err == nil) != (want < 0) || err != nil && b.Code(err) != want {
				t.Errorf("%s: %v", body, err)
			}
		}
	}
}

// TestCutAnswers ends the connection in the middle of an answer of known and of
// unknown length.
func TestCutAnswers(t *testing.T) {
	for _, header := range []string{"Content-Length: 60\r\n", "Transfer-Encoding: chunked\r\n", "Connection: close\r\n", ""} {
		d := startDouble(t, func(w http.ResponseWriter, r *http.Request) {
			conn, buf, err := w.(http.Hijacker).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			defer func() { _ = conn.Close() }()
			chunk := agentAnswer[:30]
			if strings.Contains(header, "chunked") {
				chunk = fmt.Sprintf("%x\r\n%s\r\n", len(chunk), chunk)
			}
			if header != "" {
				chunk = "HTTP/1.1 200 OK\r\n" + header + "\r\n" + chunk
			}
			_, _ = buf.WriteString(chunk)
			_ = buf.Flush()
		})
		b := open(t, vault.Options{Address: d.URL, Auth: "agent"})
		if _, err := handle(t, b, signer.RS256).Sign(t.Context(), signer.RS256, digest(signer.RS256)); b.Code(err) != signer.Unavailable {
			t.Errorf("%q: %v: code %q", header, err, b.Code(err))
		}
	}
}

func TestRedirects(t *testing.T) {
	elsewhere := startDouble(t, says(200, agentAnswer))
	u, _ := url.Parse(elsewhere.URL)
	for _, status := range []int{301, 302, 303, 307, 308} {
		standby := startDouble(t, func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, elsewhere.URL+r.URL.Path+"?hvs.secret", status)
		})
		for _, allowed := range [][]string{nil, {"other:8200"}, {u.Host}} {
			before := len(elsewhere.requests())
			b := open(t, vault.Options{Address: standby.URL, Auth: "token", TokenEnv: "ZONEMINT_TEST_TOKEN", Redirects: allowed})
			t.Setenv("ZONEMINT_TEST_TOKEN", "hvs.secret")
			_, err := handle(t, b, signer.RS256).Sign(t.Context(), signer.RS256, digest(signer.RS256))
			follows := status >= 307 && len(allowed) == 1 && allowed[0] == u.Host
			if (err == nil) != follows || err != nil && b.Code(err) != signer.Unavailable {
				t.Errorf("%d to %v: %v", status, allowed, err)
			}
			if strings.Contains(fmt.Sprint(err), "hvs.") {
				t.Errorf("%v quotes where the redirect leads", err)
			}
			if got := len(elsewhere.requests()) > before; got != follows {
				t.Errorf("%d to %v: the other server saw a request: %v", status, allowed, got)
			}
		}
	}
	for _, r := range elsewhere.requests() {
		if r.token != "hvs.secret" || strings.Contains(r.path, "sign") && !strings.Contains(r.body, "pkcs1v15") {
			t.Errorf("followed without token or body: %+v", r)
		}
	}
}

// TestSecretsStayOut has the server repeat everything it was sent.
func TestSecretsStayOut(t *testing.T) {
	t.Setenv("ZONEMINT_TEST_TOKEN", "hvs.secret")
	echo := func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusBadRequest)
		_ = json.NewEncoder(w).Encode(map[string]any{"errors": []string{"token " + r.Header.Get("X-Vault-Token"), "no role secret-id or eyJ.jwt.sig"}})
	}
	secretID, jwt := writeFile(t, "secret-id"), writeFile(t, "eyJ.jwt.sig")
	for _, o := range []vault.Options{
		{Auth: "token", TokenEnv: "ZONEMINT_TEST_TOKEN"},
		{Auth: "approle", RoleID: "role", SecretIDFile: secretID},
		{Auth: "jwt", JWTFile: jwt, Role: "role"},
		{Auth: "kubernetes", JWTFile: jwt, Role: "role"},
	} {
		d := startDouble(t, echo)
		o.Address = d.URL
		b := open(t, o)
		_, err := handle(t, b, signer.RS256).Sign(t.Context(), signer.RS256, digest(signer.RS256))
		text := fmt.Sprintf("%v %+v %#v", err, err, errors.Unwrap(err))
		for name, own := range map[string]string{"token": "hvs.secret", "approle": "secret-id", "jwt": "eyJ.jwt.sig", "kubernetes": "eyJ.jwt.sig"} {
			if err == nil || name == o.Auth && strings.Contains(text, own) {
				t.Errorf("auth %s: %s", o.Auth, text)
			}
		}
	}
}

func TestLoginRequests(t *testing.T) {
	t.Setenv("ZONEMINT_TEST_TOKEN", "hvs.own")
	login := func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/v1/auth/") {
			says(200, `{"auth":{"client_token":"hvs.new","lease_duration":3600,"renewable":true},"data":{"ttl":0}}`)(w, r)
			return
		}
		says(200, agentAnswer)(w, r)
	}
	secretID, jwt := writeFile(t, "s"), writeFile(t, "j")
	for name, tc := range map[string]struct {
		o     vault.Options
		want  seen
		token string
	}{
		"approle":        {vault.Options{Auth: "approle", RoleID: "r", SecretIDFile: secretID}, seen{"POST", "/v1/auth/approle/login", "", "ns", `{"role_id":"r","secret_id":"s"}`}, "hvs.new"},
		"approle, bound": {vault.Options{Auth: "approle", RoleIDFile: jwt}, seen{"POST", "/v1/auth/approle/login", "", "ns", `{"role_id":"j"}`}, "hvs.new"},
		"kubernetes":     {vault.Options{Auth: "kubernetes", AuthMount: "k8s/eu", Role: "r", JWTFile: jwt}, seen{"POST", "/v1/auth/k8s/eu/login", "", "ns", `{"jwt":"j","role":"r"}`}, "hvs.new"},
		"jwt":            {vault.Options{Auth: "jwt", JWTFile: jwt}, seen{"POST", "/v1/auth/jwt/login", "", "ns", `{"jwt":"j"}`}, "hvs.new"},
		"elsewhere":      {vault.Options{Auth: "jwt", JWTFile: jwt, AuthNamespace: "parent"}, seen{"POST", "/v1/auth/jwt/login", "", "parent", `{"jwt":"j"}`}, "hvs.new"},
		"token":          {vault.Options{Auth: "token", TokenEnv: "ZONEMINT_TEST_TOKEN"}, seen{"GET", "/v1/auth/token/lookup-self", "hvs.own", "ns", ""}, "hvs.own"},
	} {
		t.Run(name, func(t *testing.T) {
			d := startDouble(t, login)
			tc.o.Address, tc.o.Namespace = d.URL, "ns"
			b := open(t, tc.o)
			for range 3 {
				if _, err := handle(t, b, signer.RS256).Sign(t.Context(), signer.RS256, digest(signer.RS256)); err != nil {
					t.Fatal(err)
				}
			}
			got := d.requests()
			if len(got) != 4 || got[0] != tc.want {
				t.Errorf("%d requests, first %+v, want 4, first %+v", len(got), got[0], tc.want)
			}
			for _, r := range got[1:] {
				if r.token != tc.token || r.namespace != "ns" {
					t.Errorf("signed with %+v", r)
				}
			}
		})
	}
}

// TestSameTokenAgain has a token in a file that is dead and stays there. Every
// request finds out, and no request costs a look into the file.
func TestSameTokenAgain(t *testing.T) {
	d := startDouble(t, func(w http.ResponseWriter, r *http.Request) {
		words := "permission denied" // for the look-up, as under a policy without it
		if strings.Contains(r.URL.Path, "/sign/") {
			words = "2 errors occurred: * permission denied * invalid token"
		}
		says(403, fmt.Sprintf(`{"errors":[%q]}`, words))(w, r)
	})
	b := open(t, vault.Options{Address: d.URL, Auth: "token", TokenFile: writeFile(t, "hvs.dead")})
	h := handle(t, b, signer.RS256)
	const tries = 100
	for range tries {
		if _, err := h.Sign(t.Context(), signer.RS256, digest(signer.RS256)); b.Code(err) != signer.Denied {
			t.Fatal(err)
		}
	}
	if n := len(d.requests()); n > tries+tries/5 {
		t.Errorf("%d requests for %d signatures", n, tries)
	}
}

func TestMisconfigured(t *testing.T) {
	good := vault.Options{Address: "https://vault.example:8200", Auth: "agent"}
	for name, tc := range map[string]struct {
		change func(*vault.Options)
		want   string
	}{
		"no address":          {func(o *vault.Options) { o.Address = "" }, "setting address"},
		"a password":          {func(o *vault.Options) { o.Address = "https://u:hunter2@vault.example" }, "no credentials"},
		"a broken address":    {func(o *vault.Options) { o.Address = "https://u:hunter2@vault:port" }, "setting address"},
		"a query":             {func(o *vault.Options) { o.Address = "https://vault.example/?token=hunter2" }, "setting address"},
		"a path":              {func(o *vault.Options) { o.Address = "https://vault.example/v1" }, "setting address"},
		"plain HTTP":          {func(o *vault.Options) { o.Address = "http://vault.example:8200" }, "insecure_http"},
		"a mount":             {func(o *vault.Options) { o.Mount = "transit/../sys" }, "setting mount"},
		"a prefix":            {func(o *vault.Options) { o.KeyPrefix = "a/b" }, "key_prefix"},
		"half a certificate":  {func(o *vault.Options) { o.CertFile = "x" }, "cert_file and key_file"},
		"no authority":        {func(o *vault.Options) { o.CAFile = "/nonexistent" }, "ca_file"},
		"no auth":             {func(o *vault.Options) { o.Auth = "" }, "setting auth"},
		"two sources":         {func(o *vault.Options) { o.Auth, o.TokenEnv, o.TokenFile = "token", "A", "b" }, "one of the settings token_file, token_env"},
		"no role":             {func(o *vault.Options) { o.Auth = "kubernetes" }, "needs the setting role"},
		"no certificate":      {func(o *vault.Options) { o.Auth = "cert" }, "cert_file"},
		"of another method":   {func(o *vault.Options) { o.SecretIDFile = "x" }, "does not use the setting secret_id_file"},
		"negative":            {func(o *vault.Options) { o.MaxConnections = -1 }, "max_connections"},
		"all faults together": {func(o *vault.Options) { o.Auth, o.Mount = "", "?" }, "mount has to be the path of a secrets engine, for example transit\nthe setting auth"},
	} {
		o := good
		tc.change(&o)
		b, err := vault.New(t.Context(), o)
		if err == nil {
			_ = b.Close()
		}
		if !strings.Contains(fmt.Sprint(err), tc.want) || strings.Contains(fmt.Sprint(err), "hunter2") {
			t.Errorf("%s: %v, want %q", name, err, tc.want)
		}
	}
	for _, address := range []string{good.Address, "http://127.0.0.1:8200", "http://localhost:8200/", "unix:///run/agent.sock"} {
		o := good
		o.Address = address
		b, err := vault.New(t.Context(), o)
		if err != nil {
			t.Fatalf("%s: %v", address, err)
		}
		_ = b.Close()
	}
}

// TestBatch asks for more than fits one request, with one item that is refused.
func TestBatch(t *testing.T) {
	d := startDouble(t, says(200, `{"data":{"batch_results":[{"signature":"vault:v1:c2ln"},`+
		`{"error":"requested version for signing is higher than the latest key version"},{"signature":"vault:v2:c2ln"}]}}`))
	b := open(t, vault.Options{Address: d.URL, Auth: "agent"})
	h := handle(t, b, signer.RS256).(interface {
		SignBatch(ctx context.Context, alg signer.Algorithm, ins [][]byte) ([][]byte, []error)
	})
	sigs, errs := h.SignBatch(t.Context(), signer.RS256, slices.Repeat([][]byte{digest(signer.RS256)}, 3))
	if string(sigs[0]) != "sig" || errs[0] != nil || sigs[1] != nil || b.Code(errs[1]) != signer.NotFound || b.Code(errs[2]) != signer.Corrupt {
		t.Errorf("%q %v", sigs, errs)
	}
	_, errs = h.SignBatch(t.Context(), signer.RS256, slices.Repeat([][]byte{digest(signer.RS256)}, 67))
	for i, err := range errs[:64] {
		if b.Code(err) != signer.Corrupt {
			t.Errorf("item %d of a batch that was answered in part: %v", i, err)
		}
	}
	if errs[64] != nil || len(d.requests()) != 3 {
		t.Errorf("%d requests, %v", len(d.requests()), errs[64:])
	}
	item := `{"input":"` + base64.StdEncoding.EncodeToString(digest(signer.RS256)) + `"}`
	want := `{"batch_input":[` + item + "," + item + "," + item + `],"key_version":1,"prehashed":true,"signature_algorithm":"pkcs1v15"}`
	if got := d.requests()[0].body; got != want {
		t.Errorf("sent %s\nwant %s", got, want)
	}
	if sigs, errs := h.SignBatch(t.Context(), signer.RS256, nil); len(sigs) != 0 || len(errs) != 0 {
		t.Error("something from nothing")
	}
}

// TestConnectionsAreBounded holds all of them and sees the next request wait,
// no longer than it may.
func TestConnectionsAreBounded(t *testing.T) {
	release := make(chan struct{})
	d := startDouble(t, func(w http.ResponseWriter, r *http.Request) {
		<-release
		says(200, agentAnswer)(w, r)
	})
	b := open(t, vault.Options{Address: d.URL, Auth: "agent", MaxConnections: 2})
	h := handle(t, b, signer.RS256)
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			if _, err := h.Sign(t.Context(), signer.RS256, digest(signer.RS256)); err != nil {
				t.Error(err)
			}
		})
	}
	for b.Stats().InFlight < 2 {
		time.Sleep(time.Millisecond)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err := h.Sign(ctx, signer.RS256, digest(signer.RS256))
	if b.Code(err) != signer.Unavailable || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("with all connections taken: %v", err)
	}
	close(release)
	wg.Wait()
	if n := len(d.requests()); n != 2 {
		t.Errorf("%d requests", n)
	}
}
