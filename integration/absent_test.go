package integration

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
)

// away is a backend that is not there, and how it comes.
type away struct {
	name string
	come func()
}

// startWithout starts a server whose keys are in a backend that is away. It serves
// them, and revocations, says what is wrong, refuses to issue without a wait, and issues
// soon after the backend has come. tokens are from before.
func (in *installation) startWithout(t *testing.T, a away, tokens ...issued) (*server, issued) {
	t.Helper()
	s := in.start(t)
	if status := s.live(t); status != http.StatusOK {
		t.Errorf("the server counts as dead: status %d", status)
	}
	if doc := s.jwks(t, "zone"); doc.maxAge <= 0 {
		t.Errorf("keys are served with max-age %s", doc.maxAge)
	}
	wantValid(t, s.keys(t, "zone"), tokens...)
	s.wantUnready(t, a.name)
	c := s.overConnect(t, in.admin)
	s.wantRevocations(t, in.admin)
	wantRefused(t, c, time.Second, connect.CodeUnavailable)
	a.come()
	k := issuesSoon(t, c)
	eventually(t, 5*time.Second, "the server is ready", func() bool { return s.ready(t) == http.StatusOK })
	wantValid(t, s.keys(t, "zone"), append(tokens, k)...)
	return s, k
}

func (s *server) wantRevocations(t *testing.T, credential string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+s.public+"/keysets/zone/revocations", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+credential)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	shut(resp.Body)
	if resp.StatusCode != http.StatusOK {
		t.Errorf("revocations are served with status %d", resp.StatusCode)
	}
}

// issuesSoon wants a token within two seconds, which is how soon a backend that has come
// is used.
func issuesSoon(t *testing.T, c client) (k issued) {
	t.Helper()
	took := eventually(t, 2*time.Second, "there are tokens", func() (ok bool) {
		var err error
		k, err = c.issue(t.Context(), "after", 2*time.Second)
		return err == nil
	})
	t.Logf("there are tokens %s after the backend has come", took.Round(time.Millisecond))
	return k
}

// wantUnready wants the readiness check to name the backend, as soon as it has been
// asked for the first time.
func (s *server) wantUnready(t *testing.T, backend string) {
	t.Helper()
	const within = 5 * time.Second
	eventually(t, within, "the server is not ready", func() bool { return s.ready(t) == http.StatusServiceUnavailable })
	eventually(t, within, "the readiness check names the backend", func() bool {
		return string(get(t, s.private, "/healthz/ready").body) == "backend \""+backend+"\" does not answer\n"
	})
}

// TestStartWithoutTheHSM starts servers while the HSM is dead.
func TestStartWithoutTheHSM(t *testing.T) {
	h := newHSM(t)
	db := newSQLite(t, t.TempDir())
	in := installAdmin(t, db, h.settings())
	s := in.start(t)
	tokens := []issued{s.overConnect(t, in.admin).mustIssue(t, "before")}
	s.stop(t)

	for range rounds(2, 10) {
		h.kill()
		var k issued
		s, k = in.startWithout(t, away{"hsm", func() { h.start(t) }}, tokens...)
		tokens = append(tokens, k)
		s.stop(t)
		if log := s.log.String(); strings.Contains(log, hsmPIN) {
			t.Error("the log contains the PIN")
		}
	}
	db.wantRows(t, tokens)
	in.verifyLedger(t)
}

// TestStartWithTheWrongHSM has what is wrong with the configuration refused at the
// start, and an HSM that is away told to whoever tries it out.
func TestStartWithTheWrongHSM(t *testing.T) {
	h := newHSM(t)
	for name, c := range map[string]struct{ old, wrong, want string }{
		"token":  {"token_label: zonemint", "token_label: mistyped", `none "mistyped"`},
		"module": {p11Client, "/nowhere/hsm.so", "/nowhere"},
	} {
		set := h.settings()
		set.more = strings.Replace(set.more, c.old, c.wrong, 1)
		in := installAdmin(t, newSQLite(t, t.TempDir()), set)
		if o := zonemint(t, "serve", "--config", in.config); o.code == 0 || !strings.Contains(o.stderr, c.want) {
			t.Errorf("the wrong %s: exit code %d\n%s", name, o.code, o.stderr)
		}
	}
	in := installAdmin(t, newSQLite(t, t.TempDir()), h.settings())
	h.kill()
	if o := zonemint(t, "backend", "check", "hsm", "--config", in.config); o.code != 4 || !strings.Contains(o.stderr, "is the HSM connected?") {
		t.Errorf("backend check: exit code %d\n%s%s", o.code, o.stdout, o.stderr)
	}
}

// TestFirstStartWithoutTheHSM sets zonemint up while the HSM is away. The keyset has its
// keys once that is there, though nobody asks for them.
func TestFirstStartWithoutTheHSM(t *testing.T) {
	h := newHSM(t)
	in := installAdmin(t, newSQLite(t, t.TempDir()), h.settings())
	h.kill()
	s := in.start(t)
	if status := s.live(t); status != http.StatusOK {
		t.Errorf("the server counts as dead: status %d", status)
	}
	if doc := s.jwks(t, "zone"); strings.Contains(string(doc.body), `"kid"`) || doc.maxAge != 0 {
		t.Errorf("a keyset without keys is served with max-age %s: %s", doc.maxAge, doc.body)
	}
	h.start(t)
	firstKeysCome(t, in, s)
}

func firstKeysCome(t *testing.T, in *installation, s *server) {
	t.Helper()
	took := eventually(t, recovery, "the keyset has its keys", func() bool { return len(s.keys(t, "zone").IDs()) == 2 })
	t.Logf("the keys are there %s after the backend", took.Round(time.Millisecond))
	c := s.overConnect(t, in.admin)
	var k issued
	eventually(t, 5*time.Second, "there are tokens", func() (ok bool) {
		var err error
		k, err = c.issue(t.Context(), "first", 5*time.Second)
		return err == nil
	})
	wantValid(t, s.keys(t, "zone"), k)
	if status := s.ready(t); status != http.StatusOK {
		t.Errorf("the server issues and is not ready: status %d", status)
	}
	s.stop(t)
}

// TestStartWithoutVault starts servers while Vault is sealed, and while it is dead.
func TestStartWithoutVault(t *testing.T) {
	v := startVault(t)
	db := newSQLite(t, t.TempDir())
	in := installAdmin(t, db, settings{more: v.admit(t, "http://"+v.addr)})
	s := in.start(t)
	tokens := []issued{s.overConnect(t, in.admin).mustIssue(t, "before")}
	s.stop(t)
	for name, outage := range map[string]struct{ begin, end func() }{
		"sealed": {func() { v.must(t, "PUT", "sys/seal", nil) }, func() { v.unseal(t) }},
		"killed": {func() { v.kill(t) }, func() { v.start(t); v.unseal(t) }},
	} {
		t.Log(name)
		outage.begin()
		s, k := in.startWithout(t, away{"vault", outage.end}, tokens...)
		tokens = append(tokens, k)
		s.stop(t)
	}
	db.wantRows(t, tokens)
	in.verifyLedger(t)
}

// TestFirstStartWithoutVault is the same as without the HSM.
func TestFirstStartWithoutVault(t *testing.T) {
	v := startVault(t)
	in := installAdmin(t, newSQLite(t, t.TempDir()), settings{more: v.admit(t, "http://"+v.addr)})
	v.must(t, "PUT", "sys/seal", nil)
	s := in.start(t)
	v.unseal(t)
	firstKeysCome(t, in, s)
}
