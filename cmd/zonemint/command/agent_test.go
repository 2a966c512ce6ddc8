package command_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/zonemint/zonemint/cmd/zonemint/command"
	pb "github.com/zonemint/zonemint/proto/zonemint/v1"
	v1 "github.com/zonemint/zonemint/proto/zonemint/v1/zonemintv1connect"
)

// tokenMaker issues what looks like tokens of dataplanes.
type tokenMaker struct {
	v1.UnimplementedTokenServiceHandler
	issued []string
}

func (m *tokenMaker) IssueDataplaneToken(_ context.Context, req *pb.IssueDataplaneTokenRequest) (*pb.IssueDataplaneTokenResponse, error) {
	tags := map[string][]string{}
	for name, values := range req.GetTags() {
		tags[name] = values.GetValues()
	}
	now := time.Now()
	expires := now.Add(req.GetValidFor().AsDuration())
	body, err := json.Marshal(map[string]any{
		"Name": req.GetName(), "Mesh": req.GetMesh(), "Tags": tags, "Workload": req.GetWorkload(),
		"jti": fmt.Sprint("jti-", len(m.issued)), "iat": now.Unix(), "exp": expires.Unix(),
	})
	if err != nil {
		return nil, err
	}
	part := base64.RawURLEncoding.EncodeToString
	token := part([]byte(`{"alg":"RS256","kid":"k"}`)) + "." + part(body) + "." + part([]byte("signature"))
	m.issued = append(m.issued, token)
	return &pb.IssueDataplaneTokenResponse{Token: token, Jti: "jti", Kid: "k", ExpiresAt: timestamppb.New(expires)}, nil
}

// cluster has one Secret at most.
type cluster struct{ secret map[string]any }

func (c *cluster) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	switch {
	case !strings.HasPrefix(r.URL.Path, "/api/v1/namespaces/mesh/secrets"):
		w.WriteHeader(http.StatusForbidden)
		return
	case r.Method == http.MethodGet && c.secret == nil:
		w.WriteHeader(http.StatusNotFound)
		return
	case r.Method != http.MethodGet:
		if err := json.NewDecoder(r.Body).Decode(&c.secret); err != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		c.secret["metadata"].(map[string]any)["resourceVersion"] = "1"
	}
	_ = json.NewEncoder(w).Encode(c.secret) // the client sees what came of it
}

// kubeconfig starts the cluster and returns the way to it.
func (c *cluster) kubeconfig(t *testing.T) string {
	t.Helper()
	s := httptest.NewUnstartedServer(c)
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	text, err := json.Marshal(map[string]any{
		"apiVersion": "v1", "kind": "Config", "current-context": "c",
		"clusters": []any{map[string]any{"name": "c", "cluster": map[string]any{"server": s.URL, "certificate-authority-data": ca}}},
		"users":    []any{map[string]any{"name": "u", "user": map[string]any{"token": "t"}}},
		"contexts": []any{map[string]any{"name": "c", "context": map[string]any{"cluster": "c", "user": "u", "namespace": "mesh"}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "kubeconfig")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// runAgent runs an agent for a dataplane, once.
func runAgent(t *testing.T, m *tokenMaker, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	mux := http.NewServeMux()
	mux.Handle(v1.NewTokenServiceHandler(m))
	s := httptest.NewServer(authenticated(mux))
	defer s.Close()
	credential := filepath.Join(t.TempDir(), "api.token")
	if err := os.WriteFile(credential, []byte(fakeToken), 0o600); err != nil {
		t.Fatal(err)
	}
	args = append([]string{"agent", "dataplane", "--addr", s.URL, "--token-file", credential, "--once", "--valid-for", "1h"}, args...)
	var out, errs bytes.Buffer
	code = command.Run(t.Context(), args, command.IO{In: strings.NewReader(""), Out: &out, Err: &errs})
	return code, out.String(), errs.String()
}

func TestAgentKeepsASecret(t *testing.T) {
	t.Parallel()
	var c cluster
	var m tokenMaker
	kubeconfig := c.kubeconfig(t)
	wish := []string{"--name", "web-1", "--tag", "kuma.io/service=web,api", "--secret-key", "dataplane", "--kubeconfig", kubeconfig}
	for _, secret := range []string{"web", "mesh/web"} { // the second finds what the first has left
		code, stdout, stderr := runAgent(t, &m, append(wish, "--secret", secret)...)
		if code != 0 || !strings.Contains(stdout, "Secret mesh/web") {
			t.Fatalf("exit code %d\n%s%s", code, stdout, stderr)
		}
		if data := c.secret["data"].(map[string]any); data["dataplane"] != base64.StdEncoding.EncodeToString([]byte(m.issued[0])) {
			t.Errorf("the Secret has %v", data)
		}
		if strings.Contains(stdout+stderr, m.issued[0]) {
			t.Error("the token was printed")
		}
	}
	if len(m.issued) != 1 {
		t.Errorf("%d tokens were issued", len(m.issued))
	}
	if code, _, stderr := runAgent(t, &m, append(wish, "--name", "web-2", "--secret", "web")...); code != 0 || len(m.issued) != 2 {
		t.Errorf("for another dataplane: exit code %d, %d tokens\n%s", code, len(m.issued), stderr)
	}
	if code, _, stderr := runAgent(t, &m, append(wish, "--secret", "elsewhere/web", "--timeout", "6s")...); code == 0 || !strings.Contains(stderr, "refused") {
		t.Errorf("where it may not: exit code %d\n%s", code, stderr)
	}
}

func TestAgentRefusesWhatMakesNoSense(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	out := filepath.Join(dir, "token")
	for name, tc := range map[string]struct {
		args []string
		says string
	}{
		"no place":               {nil, "[out secret]"},
		"two places":             {[]string{"--out", out, "--secret", "x"}, "secret"},
		"a mode for a Secret":    {[]string{"--secret", "x", "--mode", "0644"}, "mode"},
		"adopting a file":        {[]string{"--out", out, "--adopt"}, "adopt"},
		"a mode that is none":    {[]string{"--out", out, "--mode", "rw"}, "--mode"},
		"an owner that is none":  {[]string{"--out", out, "--owner", "no-such-user-here"}, "--owner"},
		"a signal to nobody":     {[]string{"--out", out, "--signal", "HUP"}, "--pid-file"},
		"a pid for nothing":      {[]string{"--out", out, "--pid", "12"}, "--signal"},
		"a signal and a command": {[]string{"--out", out, "--signal", "HUP", "--pid", "12", "--", "true"}, "exclude"},
		"a signal that is none":  {[]string{"--out", out, "--signal", "KILL", "--pid", "12"}, "must be one of"},
		"a stray argument":       {[]string{"--out", out, "true"}, "after \"--\""},
		"a key that is none":     {[]string{"--secret", "x", "--secret-key", "a/b"}, "--secret-key"},
		"bound to nothing":       {[]string{"--out", out, "--name", ""}, "bound to nothing"},
		"metrics of one shot":    {[]string{"--out", out, "--metrics-listen", ":0"}, "metrics-listen"},
	} {
		var m tokenMaker
		code, _, stderr := runAgent(t, &m, append([]string{"--name", "web"}, tc.args...)...)
		if code != 2 || !strings.Contains(stderr, tc.says) || len(m.issued) > 0 {
			t.Errorf("%s: exit code %d, %d tokens\n%s", name, code, len(m.issued), stderr)
		}
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
		t.Errorf("the folder has %d files, %v", len(entries), err)
	}
}

func TestAgentTellsACommand(t *testing.T) {
	t.Parallel()
	var m tokenMaker
	dir := t.TempDir()
	code, stdout, stderr := runAgent(t, &m, "--name", "web", "--out", filepath.Join(dir, "token"), "--mode", "0640", "-o", "json",
		"--", "sh", "-c", `echo "told of $ZONEMINT_AGENT_JTI in $ZONEMINT_AGENT_FILE"`)
	if code != 0 || !strings.Contains(stderr, "told of jti-0 in "+dir) || !strings.Contains(stdout, `"jti": "jti-0"`) {
		t.Errorf("exit code %d\n%s%s", code, stdout, stderr)
	}
	if info, err := os.Stat(filepath.Join(dir, "token")); err != nil || info.Mode() != 0o640 {
		t.Errorf("the mode is %v, %v", info.Mode(), err)
	}
	code, _, stderr = runAgent(t, &m, "--name", "web", "--out", filepath.Join(dir, "token"), "--timeout", "6s", "--", "false")
	if code != 1 || !strings.Contains(stderr, "exit status 1") || len(m.issued) != 1 {
		t.Errorf("a command that fails: exit code %d, %d tokens\n%s", code, len(m.issued), stderr)
	}
}
