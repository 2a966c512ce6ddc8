package kubernetes_test

import (
	"context"
	"encoding/base64"
	"errors"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/zonemint/zonemint/kubernetes"
)

const secretValue = "eyJ.very.secret"

func example() kubernetes.Secret {
	return kubernetes.Secret{
		Name: "cp-token", Labels: map[string]string{"app": "zonemint"},
		Annotations: map[string]string{"note": "n"}, Data: map[string][]byte{"token": []byte(secretValue), "binary": {0, 255}},
	}
}

func mustCreate(t *testing.T, c *kubernetes.Client, s kubernetes.Secret) kubernetes.Secret {
	t.Helper()
	made, err := c.Create(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	return made
}

func TestASecretIsReadAsItWasWritten(t *testing.T) {
	c := newDouble(t).client()
	made := mustCreate(t, c, example())
	got, err := c.Secret(t.Context(), "mesh", "cp-token")
	if err != nil {
		t.Fatal(err)
	}
	want := example()
	want.Namespace, want.Type, want.ResourceVersion = "mesh", "Opaque", "101"
	if !reflect.DeepEqual(made, want) || !reflect.DeepEqual(got, want) {
		t.Errorf("made %+v\nread %+v\nwant %+v", made, got, want)
	}
}

func TestASecondOfTheSameNameIsRefused(t *testing.T) {
	c := newDouble(t).client()
	mustCreate(t, c, example())
	if _, err := c.Create(t.Context(), example()); !errors.Is(err, kubernetes.ErrExists) {
		t.Error("got", err)
	}
}

func TestAnUpdateKeepsWhatItDoesNotKnow(t *testing.T) {
	d := newDouble(t)
	d.put("mesh/cp-token", map[string]any{
		"apiVersion": "v1", "kind": "Secret", "type": "Opaque", "unheard": "of",
		"metadata": map[string]any{"name": "cp-token", "ownerReferences": []any{map[string]any{"name": "owner"}}},
		"data":     map[string]any{"token": "b2xk"},
	})
	c := d.client()
	s, err := c.Secret(t.Context(), "", "cp-token")
	if err != nil {
		t.Fatal(err)
	}
	s.Data = map[string][]byte{"token": []byte("new")}
	s.Labels = map[string]string{"a": "b"}
	updated, err := c.Update(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	if updated.ResourceVersion == s.ResourceVersion || string(updated.Data["token"]) != "new" || updated.Labels["a"] != "b" {
		t.Errorf("updated to %+v", updated)
	}
	kept := d.secrets["mesh/cp-token"]
	if kept["unheard"] != "of" || metadata(kept)["ownerReferences"] == nil {
		t.Errorf("the cluster has %v", kept)
	}
}

func TestWritesAreForTheVersionThatWasRead(t *testing.T) {
	for name, write := range map[string]func(context.Context, *kubernetes.Client, kubernetes.Secret) error{
		"update": func(ctx context.Context, c *kubernetes.Client, s kubernetes.Secret) error {
			_, err := c.Update(ctx, s)
			return err
		},
		"delete": func(ctx context.Context, c *kubernetes.Client, s kubernetes.Secret) error { return c.Delete(ctx, s) },
	} {
		t.Run(name, func(t *testing.T) {
			d := newDouble(t)
			c := d.client()
			if err := write(t.Context(), c, example()); err == nil || len(d.requests) > 0 {
				t.Errorf("without a version: %v, requests %q", err, d.requests)
			}
			s := mustCreate(t, c, example())
			d.touch("mesh/cp-token")
			if err := write(t.Context(), c, s); !errors.Is(err, kubernetes.ErrConflict) {
				t.Error("after another's change:", err)
			}
			s, err := c.Secret(t.Context(), "mesh", "cp-token")
			if err != nil {
				t.Fatal(err)
			}
			if err := write(t.Context(), c, s); err != nil {
				t.Error("as it was read:", err)
			}
			delete(d.secrets, "mesh/cp-token")
			if err := write(t.Context(), c, s); !errors.Is(err, kubernetes.ErrNotFound) {
				t.Error("after it was deleted:", err)
			}
		})
	}
}

// TestAChangeBetweenReadingAndWritingIsAConflict has another's change come after
// the update has looked.
func TestAChangeBetweenReadingAndWritingIsAConflict(t *testing.T) {
	d := newDouble(t)
	c := d.client()
	s := mustCreate(t, c, example())
	d.answer = func(w http.ResponseWriter, r *http.Request) {
		d.one(w, r, "mesh/cp-token")
		if r.Method == http.MethodGet {
			d.put("mesh/cp-token", d.secrets["mesh/cp-token"])
		}
	}
	if _, err := c.Update(t.Context(), s); !errors.Is(err, kubernetes.ErrConflict) {
		t.Error("got", err)
	}
}

func TestListsHaveAllPages(t *testing.T) {
	c := newDouble(t).client()
	for _, name := range []string{"a", "b", "c", "d", "e"} {
		s := kubernetes.Secret{Name: name, Labels: map[string]string{"odd": "no"}}
		if name == "b" {
			s.Labels["odd"] = "yes"
		}
		mustCreate(t, c, s)
	}
	mustCreate(t, c, kubernetes.Secret{Namespace: "elsewhere", Name: "x"})
	for selector, want := range map[string]string{"": "abcde", "odd=no": "acde", "odd=yes": "b", "odd=maybe": ""} {
		all, err := c.Secrets(t.Context(), "", selector)
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		for _, s := range all {
			got += s.Name
		}
		if got != want {
			t.Errorf("%q: %s, want %s", selector, got, want)
		}
	}
}

func TestFailuresHaveAClass(t *testing.T) {
	for _, tc := range []struct {
		code int
		want error
	}{
		{http.StatusUnauthorized, kubernetes.ErrDenied},
		{http.StatusForbidden, kubernetes.ErrDenied},
		{http.StatusNotFound, kubernetes.ErrNotFound},
		{http.StatusConflict, kubernetes.ErrConflict},
		{http.StatusTooManyRequests, kubernetes.ErrUnavailable},
		{http.StatusInternalServerError, kubernetes.ErrUnavailable},
		{http.StatusServiceUnavailable, kubernetes.ErrUnavailable},
		{http.StatusGatewayTimeout, kubernetes.ErrUnavailable},
	} {
		for name, answer := range map[string]http.HandlerFunc{
			"the API": func(w http.ResponseWriter, _ *http.Request) { status(w, tc.code, "", "because") },
			"a proxy": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(tc.code) },
		} {
			t.Run(http.StatusText(tc.code)+" of "+name, func(t *testing.T) {
				d := newDouble(t)
				d.answer = answer
				if _, err := d.client().Secret(t.Context(), "", "x"); !errors.Is(err, tc.want) {
					t.Errorf("read: %v", err)
				}
				if _, err := d.client().Secrets(t.Context(), "", ""); !errors.Is(err, tc.want) {
					t.Errorf("list: %v", err)
				}
			})
		}
	}
}

func TestAnInvalidRequestHasNoClass(t *testing.T) {
	d := newDouble(t)
	d.answer = func(w http.ResponseWriter, _ *http.Request) {
		status(w, http.StatusUnprocessableEntity, "Invalid", "too long")
	}
	_, err := d.client().Create(t.Context(), example())
	for _, class := range []error{kubernetes.ErrNotFound, kubernetes.ErrConflict, kubernetes.ErrExists, kubernetes.ErrDenied, kubernetes.ErrUnavailable} {
		if errors.Is(err, class) {
			t.Errorf("%v is %v", err, class)
		}
	}
	if err == nil || !strings.Contains(err.Error(), "too long") {
		t.Error("got", err)
	}
}

func TestErrorsHaveNoData(t *testing.T) {
	encoded := base64.StdEncoding.EncodeToString([]byte(secretValue))
	for name, answer := range map[string]http.HandlerFunc{
		"a webhook that quotes":        func(w http.ResponseWriter, _ *http.Request) { status(w, 403, "Forbidden", "no "+secretValue) },
		"a webhook that quotes base64": func(w http.ResponseWriter, _ *http.Request) { status(w, 400, "BadRequest", "no "+encoded) },
		"no kind": func(w http.ResponseWriter, _ *http.Request) {
			reply(w, 200, map[string]any{"data": map[string]any{"token": encoded}})
		},
		"no base64": func(w http.ResponseWriter, _ *http.Request) {
			reply(w, 200, map[string]any{"apiVersion": "v1", "kind": "Secret", "metadata": map[string]any{}, "data": map[string]any{"token": secretValue}})
		},
		"cut off": func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(`{"data": {"token": "` + encoded)) },
	} {
		t.Run(name, func(t *testing.T) {
			d := newDouble(t)
			d.answer = answer
			_, err := d.client().Create(t.Context(), example())
			if err == nil {
				t.Fatal("no error")
			}
			if strings.Contains(err.Error(), secretValue) || strings.Contains(err.Error(), encoded) {
				t.Error("the error quotes data:", err)
			}
		})
	}
}

func TestNobodyThereIsUnavailable(t *testing.T) {
	d := newDouble(t)
	c := d.client()
	d.url = "http://127.0.0.1:1"
	nobody := d.client()
	if _, err := nobody.Secret(t.Context(), "", "x"); !errors.Is(err, kubernetes.ErrUnavailable) {
		t.Error("got", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Secret(ctx, "", "x"); !errors.Is(err, context.Canceled) || errors.Is(err, kubernetes.ErrUnavailable) {
		t.Error("a caller who has left:", err)
	}
}

func TestRedirectsAreNotFollowed(t *testing.T) {
	followed := false
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { followed = true }))
	defer elsewhere.Close()
	d := newDouble(t)
	d.answer = func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, elsewhere.URL, http.StatusTemporaryRedirect)
	}
	if _, err := d.client().Secret(t.Context(), "", "x"); err == nil || followed {
		t.Error("followed:", followed, "error:", err)
	}
}

func TestNamesThatAreNoneAreRefused(t *testing.T) {
	d := newDouble(t)
	c := d.client()
	for _, name := range []string{"", "..", "a/b", "A", "a%2fb"} {
		_, err := c.Secret(t.Context(), "", name)
		_, cerr := c.Create(t.Context(), kubernetes.Secret{Name: name})
		_, uerr := c.Update(t.Context(), kubernetes.Secret{Name: name, ResourceVersion: "1"})
		derr := c.Delete(t.Context(), kubernetes.Secret{Name: name, ResourceVersion: "1"})
		if err == nil || cerr == nil || uerr == nil || derr == nil {
			t.Errorf("%q: %v, %v, %v, %v", name, err, cerr, uerr, derr)
		}
	}
	if _, err := c.Secrets(t.Context(), "../x", ""); err == nil {
		t.Error("a list of ../x")
	}
	if len(d.requests) > 0 {
		t.Errorf("requests %q", d.requests)
	}
}

func TestConfigurations(t *testing.T) {
	d := newDouble(t)
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	t.Setenv("HOME", t.TempDir())
	t.Setenv("KUBECONFIG", filepath.Join(t.TempDir(), "none"))
	if _, err := kubernetes.New(kubernetes.Config{}); err == nil || !strings.Contains(err.Error(), "no cluster is known") {
		t.Error("with nothing:", err)
	}
	t.Setenv("KUBECONFIG", d.kubeconfig("n1"))
	for name, tc := range map[string]struct {
		c         kubernetes.Config
		namespace string // "" if it is refused
	}{
		"another context":            {kubernetes.Config{Context: "test"}, "n1"},
		"a context of no name":       {kubernetes.Config{Context: "other"}, ""},
		"another file":               {kubernetes.Config{Kubeconfig: d.kubeconfig("n2"), Context: "test"}, "n2"},
		"a file without a namespace": {kubernetes.Config{Kubeconfig: d.kubeconfig(""), Context: "test"}, "default"},
		"a file that is not there":   {kubernetes.Config{Kubeconfig: filepath.Join(t.TempDir(), "none")}, ""},
	} {
		c, err := kubernetes.New(tc.c)
		switch {
		case (err != nil) != (tc.namespace == ""):
			t.Errorf("%s: %v", name, err)
		case err == nil && c.Namespace() != tc.namespace:
			t.Errorf("%s: namespace %q, want %q", name, c.Namespace(), tc.namespace)
		}
	}
}

func TestTheTokenOfItsFileIsSent(t *testing.T) {
	d := newDouble(t)
	mustCreate(t, d.client(), example())
	if got := d.tokens[0]; got != "Bearer first" {
		t.Errorf("sent %q", got)
	}
}
