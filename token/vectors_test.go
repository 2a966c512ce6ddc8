package token_test

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/zonemint/zonemint/token"
)

// With -update the vectors are signed anew, by keys that are then thrown away:
// testdata holds no private key.
var update = flag.Bool("update", false, "write testdata/keys.json and testdata/vectors")

func fixed(t time.Time) func() time.Time { return func() time.Time { return t } }

func zoneVerifier(t testing.TB, keys token.KeySource, o token.Options) *token.Verifier[token.ZoneClaims] {
	t.Helper()
	if o.Now == nil {
		o.Now = fixed(testTime)
	}
	v, err := token.NewVerifier[token.ZoneClaims](keys, o)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// checkVector verifies one token, and that a refusal tells nothing that it must not.
func checkVector(t *testing.T, v *token.Verifier[token.ZoneClaims], c vector) {
	t.Helper()
	got, err := v.Verify(t.Context(), c.Token)
	if reason := token.Reason(err); reason != c.Reason {
		t.Fatalf("got reason %q (%v), want %q", reason, err, c.Reason)
	}
	if err == nil {
		if got.Claims.Zone != "west" || got.Claims.ID == "" || got.Header.KeyID == "" {
			t.Errorf("claims are %+v", got)
		}
		return
	}
	if got.Claims.Zone != "" || got.Header.KeyID != "" {
		t.Errorf("a refused token still gave %+v", got)
	}
	if text := err.Error(); len(text) > 400 {
		t.Errorf("error is %d bytes long: %.100s...", len(text), text)
	}
}

func TestVectors(t *testing.T) {
	all := testIssuers()
	keys := all.keySet(t)
	v := zoneVerifier(t, keys, token.Options{})
	list := vectors(all)
	for _, c := range list {
		t.Run(c.Name, func(t *testing.T) { checkVector(t, v, c) })
	}
	if *update && !t.Failed() {
		writeVectors(t, keys, list)
	}
}

func TestGoldenVectors(t *testing.T) {
	keys, list := goldenVectors(t)
	v := zoneVerifier(t, keys, token.Options{})
	for _, c := range list {
		t.Run(c.Name, func(t *testing.T) { checkVector(t, v, c) })
	}
}

// goldenVectors reads what writeVectors wrote. It fails if there is nothing, and if
// a vector was added without being written.
func goldenVectors(t testing.TB) (*token.KeySet, []vector) {
	t.Helper()
	data, err := os.ReadFile("testdata/keys.json")
	if err != nil {
		t.Fatal(err)
	}
	keys, err := token.ParseKeySet(data)
	if err != nil || len(keys.Keys()) != len(token.Algorithms()) {
		t.Fatalf("testdata/keys.json: %v, keys %v", err, keys)
	}
	files, err := filepath.Glob("testdata/vectors/*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("no vectors: %v", err)
	}
	list := make([]vector, len(files))
	for i, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(data, &list[i]); err != nil || list[i].Name+".json" != filepath.Base(file) || list[i].Reason == "" {
			t.Fatalf("%s: %v", file, err)
		}
	}
	if want := len(vectors(testIssuers())); len(list) != want {
		t.Fatalf("%d vectors in testdata, %d in the tests: run with -update", len(list), want)
	}
	return keys, list
}

func writeVectors(t *testing.T, keys *token.KeySet, list []vector) {
	t.Helper()
	old, err := filepath.Glob("testdata/vectors/*.json")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range old {
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
	}
	writeJSON(t, "testdata/keys.json", keys)
	for _, c := range list {
		writeJSON(t, filepath.Join("testdata", "vectors", c.Name+".json"), c)
	}
}

func writeJSON(t *testing.T, file string, v any) {
	t.Helper()
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, append(data, '\n'), 0o644); err != nil {
		t.Fatal(err)
	}
}
