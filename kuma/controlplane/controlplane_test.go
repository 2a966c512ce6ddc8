package controlplane_test

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	double "github.com/zonemint/zonemint/integration/controlplane"
	"github.com/zonemint/zonemint/kubernetes"
	"github.com/zonemint/zonemint/kuma"
	"github.com/zonemint/zonemint/kuma/controlplane"
)

const credential = "an-admin"

func newKey(t *testing.T, kid string) kuma.PublicKey {
	t.Helper()
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	k, err := kuma.NewPublicKey(kid, private.Public())
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestForbiddenWritesAreRefused(t *testing.T) {
	key := newKey(t, "zone-1-aa")
	const name = "zone-token-signing-public-key-zone-1-aa"
	for what, s := range map[string]controlplane.Secret{
		"a private key's name":       {Ref: kuma.Ref{Name: "zone-token-signing-key-zone-1-aa"}, Data: []byte(key.PEM)},
		"a number":                   {Ref: kuma.Ref{Name: "zone-token-signing-public-key-1"}, Data: []byte(key.PEM)},
		"no key ID":                  {Ref: kuma.Ref{Name: "zone-token-signing-public-key-"}, Data: []byte(key.PEM)},
		"a key ID that is no name":   {Ref: kuma.Ref{Name: "zone-token-signing-public-key-A/b"}, Data: []byte(key.PEM)},
		"a path":                     {Ref: kuma.Ref{Name: "zone-token-signing-public-key-../x"}, Data: []byte(key.PEM)},
		"a key in a mesh":            {Ref: kuma.Ref{Mesh: "default", Name: name}, Data: []byte(key.PEM)},
		"the administrator's token":  {Ref: kuma.Ref{Name: "admin-user-token"}, Data: []byte("a")},
		"another list":               {Ref: kuma.Ref{Name: "control-plane-token-revocations"}, Data: []byte("a")},
		"a list of another mesh":     {Ref: kuma.Ref{Mesh: "default", Name: "dataplane-token-revocations-east"}, Data: []byte("a")},
		"a list of no mesh":          {Ref: kuma.Ref{Name: "dataplane-token-revocations-"}, Data: []byte("a")},
		"a zone list in a mesh":      {Ref: kuma.Ref{Mesh: "default", Name: "zone-token-revocations"}, Data: []byte("a")},
		"junk for a key":             {Ref: kuma.Ref{Name: name}, Data: []byte("junk")},
		"nothing for a key":          {Ref: kuma.Ref{Name: name}},
		"an empty list":              {Ref: kuma.Ref{Name: "zone-token-revocations"}},
		"an empty entry":             {Ref: kuma.Ref{Name: "zone-token-revocations"}, Data: []byte("a,,b")},
		"an empty entry at the end":  {Ref: kuma.Ref{Name: "zone-token-revocations"}, Data: []byte("a,")},
		"a space":                    {Ref: kuma.Ref{Name: "zone-token-revocations"}, Data: []byte("a, b")},
		"a newline":                  {Ref: kuma.Ref{Name: "zone-token-revocations"}, Data: []byte("a,b\n")},
		"an entry that is repeated":  {Ref: kuma.Ref{Name: "zone-token-revocations"}, Data: []byte("a,a")},
		"a list that is too large":   {Ref: kuma.Ref{Name: "zone-token-revocations"}, Data: []byte(strings.Repeat("a", 1<<20+1))},
		"a private key for a public": {Ref: kuma.Ref{Name: name}, Data: []byte(strings.ReplaceAll(key.PEM, "PUBLIC", "PRIVATE"))},
	} {
		for kind, store := range stores(t) {
			if err := store.Put(t.Context(), s); !errors.Is(err, controlplane.ErrForbidden) {
				t.Errorf("%s, %s: got %v, want ErrForbidden", kind, what, err)
			}
		}
	}
	for kind, store := range stores(t) {
		for _, name := range []string{"zone-token-signing-key-1", "zone-token-signing-public-key-1", "admin-user-token", "x"} {
			if err := store.Delete(t.Context(), controlplane.Secret{Ref: kuma.Ref{Name: name}, Version: "1"}); !errors.Is(err, controlplane.ErrForbidden) {
				t.Errorf("%s, deleting %s: got %v, want ErrForbidden", kind, name, err)
			}
		}
	}
}

// store is what both have.
type store interface {
	Get(ctx context.Context, ref kuma.Ref) (controlplane.Secret, error)
	List(ctx context.Context, mesh, prefix string) ([]controlplane.Secret, error)
	Put(ctx context.Context, s controlplane.Secret) error
	Delete(ctx context.Context, s controlplane.Secret) error
}

// stores returns both kinds, each with a double of its own.
func stores(t *testing.T) map[string]store {
	t.Helper()
	rest, _ := newREST(t)
	k, _ := newKubernetes(t)
	return map[string]store{"REST": rest, "Kubernetes": k}
}

func newREST(t *testing.T) (*controlplane.REST, *double.ControlPlane) {
	t.Helper()
	cp := double.New(credential, "default")
	srv := httptest.NewServer(cp)
	t.Cleanup(srv.Close)
	t.Cleanup(func() { wantNoViolations(t, cp.Violations()) })
	return dial(t, srv.URL, credential), cp
}

func dial(t *testing.T, url, credential string) *controlplane.REST {
	t.Helper()
	rest, err := controlplane.NewREST(controlplane.RESTConfig{Address: url, Credential: func() (string, error) { return credential, nil }})
	if err != nil {
		t.Fatal(err)
	}
	return rest
}

func newKubernetes(t *testing.T) (*controlplane.Kubernetes, *double.Cluster) {
	t.Helper()
	cluster := double.NewCluster(credential)
	srv := httptest.NewTLSServer(cluster)
	t.Cleanup(srv.Close)
	t.Cleanup(func() { wantNoViolations(t, cluster.Violations()) })
	path := filepath.Join(t.TempDir(), "kubeconfig")
	text, err := double.Kubeconfig(srv.URL, credential, srv.Certificate())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	client, err := kubernetes.New(kubernetes.Config{Kubeconfig: path})
	if err != nil {
		t.Fatal(err)
	}
	return controlplane.NewKubernetes(client, "kuma-system"), cluster
}

func wantNoViolations(t *testing.T, violations []string) {
	t.Helper()
	for _, v := range violations {
		t.Error("the control plane objects:", v)
	}
}

func TestSecretsComeAndGo(t *testing.T) {
	key := newKey(t, "zone-1-aa")
	for kind, store := range stores(t) {
		for _, s := range []controlplane.Secret{
			{Ref: kuma.Ref{Name: "zone-token-signing-public-key-zone-1-aa"}, Data: []byte(key.PEM)},
			{Ref: kuma.Ref{Name: "zone-token-revocations"}, Data: []byte("a,b")},
			{Ref: kuma.Ref{Mesh: "default", Name: "dataplane-token-revocations-default"}, Data: []byte("a")},
		} {
			s.Labels = map[string]string{controlplane.OwnerLabel: controlplane.Owner}
			if _, err := store.Get(t.Context(), s.Ref); !errors.Is(err, controlplane.ErrNotFound) {
				t.Errorf("%s %s: got %v before it was made, want ErrNotFound", kind, s.Ref, err)
			}
			if err := store.Put(t.Context(), s); err != nil {
				t.Fatal(kind, err)
			}
			got, err := store.Get(t.Context(), s.Ref)
			if err != nil || string(got.Data) != string(s.Data) || !got.Owned() || got.Version == "" {
				t.Errorf("%s: got %+v, %v", kind, got, err)
			}
			if s.Ref.Name == "zone-token-revocations" {
				got.Data = []byte("a,b,c")
				if err := store.Put(t.Context(), got); err != nil {
					t.Fatal(kind, err)
				}
				if got, err = store.Get(t.Context(), s.Ref); err != nil || string(got.Data) != "a,b,c" {
					t.Errorf("%s: got %s, %v", kind, got.Data, err)
				}
			}
		}
		listed, err := store.List(t.Context(), "", "zone-token-signing-public-key-")
		if err != nil || len(listed) != 1 || string(listed[0].Data) != key.PEM {
			t.Errorf("%s: got %d keys, %v", kind, len(listed), err)
		}
		if listed, err = store.List(t.Context(), "default", "dataplane-token-"); err != nil || len(listed) != 1 || string(listed[0].Data) != "a" {
			t.Errorf("%s: got %v of the mesh, %v", kind, listed, err)
		}
		for _, s := range listed {
			if err := store.Delete(t.Context(), s); err != nil {
				t.Error(kind, err)
			}
			if err := store.Delete(t.Context(), s); err != nil {
				t.Error(kind, "deleting again:", err)
			}
			if _, err := store.Get(t.Context(), s.Ref); !errors.Is(err, controlplane.ErrNotFound) {
				t.Errorf("%s: got %v after it was deleted, want ErrNotFound", kind, err)
			}
		}
	}
}

func TestRESTListsAllPages(t *testing.T) {
	for _, old := range []bool{false, true} {
		rest, cp := newREST(t)
		cp.Old(old)
		cp.PageSize(3)
		var want []string
		for _, c := range "abcdefghij" {
			name := "zone-token-signing-public-key-z" + string(c)
			want = append(want, name)
			cp.Set(double.Ref{Name: name}, "x", nil)
			cp.Set(double.Ref{Name: "zone-token-signing-key-" + string(c)}, "x", nil)
		}
		all, err := rest.List(t.Context(), "", "zone-token-signing-public-key-")
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, s := range all {
			got = append(got, s.Ref.Name)
		}
		if !slices.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
	}
}

func TestRESTErrorsSayWhatToDo(t *testing.T) {
	ref := kuma.Ref{Name: "zone-token-revocations"}
	put := func(r *controlplane.REST) error {
		return r.Put(t.Context(), controlplane.Secret{Ref: ref, Data: []byte("a")})
	}
	rest, cp := newREST(t)
	cp.ReadOnly(true)
	if err := put(rest); !errors.Is(err, controlplane.ErrReadOnly) || !strings.Contains(err.Error(), "kubernetes:") {
		t.Errorf("read-only: got %v", err)
	}
	cp.ReadOnly(false)
	for n := range 3 {
		cp.FailNext(1, []int{500, 502, 503}[n])
		if err := put(rest); !errors.Is(err, controlplane.ErrUnavailable) {
			t.Errorf("5xx: got %v", err)
		}
	}
	cp.Break(1)
	// The standard library tries a GET or PUT without an answer again by itself on a
	// used connection; a fresh one fails.
	if err := put(rest); err != nil && !errors.Is(err, controlplane.ErrUnavailable) {
		t.Errorf("a broken connection: got %v", err)
	}
	mesh := controlplane.Secret{Ref: kuma.Ref{Mesh: "east", Name: "dataplane-token-revocations-east"}, Data: []byte("a")}
	if err := rest.Put(t.Context(), mesh); !errors.Is(err, controlplane.ErrNoMesh) {
		t.Errorf("no mesh: got %v", err)
	}
}

func TestRESTDeniesAndNeverShowsTheCredential(t *testing.T) {
	cp := double.New(credential)
	srv := httptest.NewServer(cp)
	t.Cleanup(srv.Close)
	rest := dial(t, srv.URL, "a-wrong-one")
	_, err := rest.Get(t.Context(), kuma.Ref{Name: "zone-token-revocations"})
	if !errors.Is(err, controlplane.ErrDenied) || strings.Contains(err.Error(), "a-wrong-one") {
		t.Errorf("got %v", err)
	}
	failing, err := controlplane.NewREST(controlplane.RESTConfig{Address: srv.URL, Credential: func() (string, error) { return "", os.ErrNotExist }})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := failing.Get(t.Context(), kuma.Ref{Name: "zone-token-revocations"}); !errors.Is(err, controlplane.ErrDenied) || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

func TestRESTFollowsNoRedirect(t *testing.T) {
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("it was followed") }))
	t.Cleanup(elsewhere.Close)
	srv := httptest.NewServer(http.RedirectHandler(elsewhere.URL, http.StatusTemporaryRedirect))
	t.Cleanup(srv.Close)
	if _, err := dial(t, srv.URL, credential).Get(t.Context(), kuma.Ref{Name: "zone-token-revocations"}); !errors.Is(err, controlplane.ErrUnavailable) {
		t.Errorf("got %v, want ErrUnavailable", err)
	}
}

func TestRESTTakesNoOtherAnswerForItsOwn(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("{}")) }))
	t.Cleanup(srv.Close)
	rest := dial(t, srv.URL, credential)
	if _, err := rest.Get(t.Context(), kuma.Ref{Name: "zone-token-revocations"}); !errors.Is(err, controlplane.ErrUnavailable) {
		t.Errorf("a secret: got %v, want ErrUnavailable", err)
	}
	if _, err := rest.List(t.Context(), "", "zone-token-"); !errors.Is(err, controlplane.ErrUnavailable) {
		t.Errorf("a list: got %v, want ErrUnavailable", err)
	}
}

func TestRESTRefusesAddresses(t *testing.T) {
	for _, address := range []string{"", "cp:5681", "ftp://cp", "https://user:pw@cp", "https://cp?x=1", "https://cp#x"} {
		_, err := controlplane.NewREST(controlplane.RESTConfig{Address: address})
		if err == nil || strings.Contains(err.Error(), "pw") {
			t.Errorf("%s: got %v", address, err)
		}
	}
}

func TestKubernetesComparesAndSwaps(t *testing.T) {
	k, cluster := newKubernetes(t)
	ref := kuma.Ref{Name: "zone-token-revocations"}
	s := controlplane.Secret{Ref: ref, Data: []byte("a")}
	if err := k.Put(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	if err := k.Put(t.Context(), s); !errors.Is(err, controlplane.ErrConflict) {
		t.Errorf("making it again: got %v, want ErrConflict", err)
	}
	cluster.Intrude("kuma-system", ref.Name, func(s *double.CoreSecret) { s.Data["value"] = []byte("a,x") })
	read, err := k.Get(t.Context(), ref)
	if err != nil {
		t.Fatal(err)
	}
	read.Data = []byte("a,b")
	if err := k.Put(t.Context(), read); !errors.Is(err, controlplane.ErrConflict) {
		t.Errorf("writing over somebody else: got %v, want ErrConflict", err)
	}
	if err := k.Delete(t.Context(), read); !errors.Is(err, controlplane.ErrConflict) {
		t.Errorf("deleting what somebody else wrote: got %v, want ErrConflict", err)
	}
	if now, _ := cluster.Secret("kuma-system", ref.Name); string(now.Data["value"]) != "a,x" {
		t.Errorf("got %s", now.Data["value"])
	}
}

func TestKubernetesKeepsWhatElseASecretHas(t *testing.T) {
	k, cluster := newKubernetes(t)
	ref := kuma.Ref{Name: "zone-token-revocations"}
	cluster.Set(double.CoreSecret{Type: "system.kuma.io/global-secret", Data: map[string][]byte{"value": []byte("x"), "more": []byte("y")}, Metadata: double.Metadata{
		Namespace: "kuma-system", Name: ref.Name, Labels: map[string]string{"team": "mesh"}, Annotations: map[string]string{"note": "1"},
	}})
	s, err := k.Get(t.Context(), ref)
	if err != nil {
		t.Fatal(err)
	}
	s.Data = []byte("x,a")
	if err := k.Put(t.Context(), s); err != nil {
		t.Fatal(err)
	}
	now, _ := cluster.Secret("kuma-system", ref.Name)
	if string(now.Data["value"]) != "x,a" || string(now.Data["more"]) != "y" || now.Metadata.Labels["team"] != "mesh" || now.Metadata.Annotations["note"] != "1" {
		t.Errorf("got %+v", now)
	}
}

func TestKubernetesHasOneSecretForAName(t *testing.T) {
	k, cluster := newKubernetes(t)
	const name = "dataplane-token-revocations-default"
	if err := k.Put(t.Context(), controlplane.Secret{Ref: kuma.Ref{Name: name}, Data: []byte("a")}); err != nil {
		t.Fatal(err)
	}
	if _, err := k.Get(t.Context(), kuma.Ref{Mesh: "default", Name: name}); !errors.Is(err, controlplane.ErrTaken) {
		t.Errorf("got %v, want ErrTaken", err)
	}
	if s, _ := cluster.Secret("kuma-system", name); s.Type != "system.kuma.io/global-secret" {
		t.Errorf("got the type %s", s.Type)
	}
}
