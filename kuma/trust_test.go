package kuma_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/zonemint/zonemint/kuma"
	"github.com/zonemint/zonemint/token"
)

func read(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// keysets are one of each profile. The first has a key that was taken over.
func keysets(t *testing.T) []kuma.Keyset {
	t.Helper()
	key := func(id string, serial int, state, file string) kuma.Key {
		return kuma.Key{ID: id, Serial: serial, State: state, Algorithm: "RS256-2048", PEM: read(t, file)}
	}
	own := key("1", 3, "retiring", "zone2.pub")
	own.Imported = true
	return []kuma.Keyset{
		{Name: "zone", Profile: token.ProfileZone, Revoked: kuma.List{"a1", "b2"}, Keys: []kuma.Key{
			key("zone-1-e2c724bb", 1, "active", "zone1.pub"), own,
		}},
		{Name: "dataplane/default", Profile: token.ProfileDataplane, Mesh: "default", Revoked: kuma.List{"c3"}, Keys: []kuma.Key{
			key("dataplane-default-1-0f2b9c11", 1, "active", "dp.pub"),
		}},
		{Name: "user", Profile: token.ProfileUser, Keys: []kuma.Key{key("user-1-77aa02d3", 1, "published", "user.pub")}},
	}
}

func trust(t *testing.T) kuma.Trust {
	t.Helper()
	return kuma.Trust{At: time.Date(2026, 11, 21, 5, 0, 0, 0, time.UTC), Keysets: keysets(t)}
}

// moving is the configuration of a control plane during a migration.
func moving() kuma.ConfigOptions { return kuma.ConfigOptions{EnableIssuer: true, UseSecrets: true} }

func TestWhatAServerSaysEndsNoComment(t *testing.T) {
	t.Parallel()
	tr := trust(t)
	tr.Keysets[0].Keys[0].State = "active)\napiServer: {authn: {type: none}}\r# \u2028"
	doc, err := tr.Config(moving())
	if err != nil {
		t.Fatal(err)
	}
	text, err := doc.YAML()
	if err != nil || strings.Contains(string(text), "\napiServer: {") || strings.ContainsAny(string(text), "\r\u2028") {
		t.Errorf("%v\n%s", err, text)
	}
}

func TestGolden(t *testing.T) {
	t.Parallel()
	all := kuma.SecretOptions{Keys: true, Revocations: true}
	for name, made := range map[string]func(kuma.Trust) (kuma.Document, error){
		"config":          func(tr kuma.Trust) (kuma.Document, error) { return tr.Config(moving()) },
		"config-moved":    func(tr kuma.Trust) (kuma.Document, error) { return tr.Config(kuma.ConfigOptions{Imported: true}) },
		"helm":            func(tr kuma.Trust) (kuma.Document, error) { return tr.HelmValues(moving(), false) },
		"helm-kong-mesh":  func(tr kuma.Trust) (kuma.Document, error) { return tr.HelmValues(moving(), true) },
		"kubernetes":      func(tr kuma.Trust) (kuma.Document, error) { return tr.Kubernetes("kuma-system", all) },
		"kubernetes-keys": func(tr kuma.Trust) (kuma.Document, error) { return tr.Kubernetes("x", kuma.SecretOptions{Keys: true}) },
		"universal":       func(tr kuma.Trust) (kuma.Document, error) { return tr.Universal(all) },
		"universal-revocations": func(tr kuma.Trust) (kuma.Document, error) {
			return tr.Universal(kuma.SecretOptions{Revocations: true})
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			doc, err := made(trust(t))
			if err != nil {
				t.Fatal(err)
			}
			asYAML, err := doc.YAML()
			golden(t, name+".yaml", asYAML, err)
			asJSON, err := doc.JSON()
			golden(t, name+".json", asJSON, err)
			golden(t, name+".notes", []byte(strings.Join(doc.Notes, "\n")+"\n"), nil)
			sameContent(t, asYAML, asJSON)
		})
	}
}

func golden(t *testing.T, name string, got []byte, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(got), "PRIVATE") {
		t.Errorf("%s has a private key", name)
	}
	path := filepath.Join("testdata", "golden", name)
	if os.Getenv("ZONEMINT_UPDATE_GOLDEN") != "" {
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o750), os.WriteFile(path, got, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s is not what testdata/golden has (ZONEMINT_UPDATE_GOLDEN=1 updates it):\n%s", name, got)
	}
}

// sameContent wants all that YAML has, document by document, in the JSON.
func sameContent(t *testing.T, asYAML, asJSON []byte) {
	t.Helper()
	var docs []any
	for dec := yaml.NewDecoder(bytes.NewReader(asYAML)); ; {
		var doc any
		if dec.Decode(&doc) != nil {
			break
		}
		docs = append(docs, doc)
	}
	var all any
	if err := json.Unmarshal(asJSON, &all); err != nil {
		t.Fatal(err)
	}
	if m, ok := all.(map[string]any); ok && m["items"] != nil {
		all = m["items"]
	} else {
		all = []any{all}
	}
	a, aerr := json.Marshal(docs)
	b, berr := json.Marshal(all)
	if aerr != nil || berr != nil || !bytes.Equal(a, b) {
		t.Errorf("YAML and JSON differ:\n%s\n%s", a, b)
	}
}

// What cannot be read back as a key that was put in would keep a control plane
// from starting.
func TestConfigHoldsKeysAsTheyAre(t *testing.T) {
	t.Parallel()
	doc, err := trust(t).HelmValues(moving(), false)
	if err != nil {
		t.Fatal(err)
	}
	text, err := doc.YAML()
	if err != nil {
		t.Fatal(err)
	}
	var values struct {
		ControlPlane struct {
			Config string `yaml:"config"`
		} `yaml:"controlPlane"`
	}
	var config struct {
		DPServer struct {
			Authn struct {
				DPProxy struct {
					DPToken struct {
						Validator struct {
							PublicKeys []struct{ KID, Mesh, Key string } `yaml:"publicKeys"`
						} `yaml:"validator"`
					} `yaml:"dpToken"`
				} `yaml:"dpProxy"`
			} `yaml:"authn"`
		} `yaml:"dpServer"`
	}
	if err := errors.Join(yaml.Unmarshal(text, &values), yaml.Unmarshal([]byte(values.ControlPlane.Config), &config)); err != nil {
		t.Fatal(err)
	}
	keys := config.DPServer.Authn.DPProxy.DPToken.Validator.PublicKeys
	if len(keys) != 1 || keys[0].Key != read(t, "dp.pub") || keys[0].Mesh != "default" {
		t.Errorf("keys are %+v", keys)
	}
	if !strings.Contains(values.ControlPlane.Config, "key: |\n") {
		t.Error("keys are not literal blocks")
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	config := func(tr kuma.Trust) (kuma.Document, error) { return tr.Config(moving()) }
	secrets := func(tr kuma.Trust) (kuma.Document, error) {
		return tr.Kubernetes("x", kuma.SecretOptions{Keys: true, Revocations: true})
	}
	for name, c := range map[string]struct {
		change func(*kuma.Trust)
		made   func(kuma.Trust) (kuma.Document, error)
		says   []string
	}{
		"not RSA":      {func(tr *kuma.Trust) { tr.Keysets[0].Keys[0].PEM = read(t, "ec.pub") }, config, []string{`keyset "zone"`, "RS256 only"}},
		"short":        {func(tr *kuma.Trust) { tr.Keysets[0].Keys[0].PEM = read(t, "short.pub") }, config, []string{"1024 bits"}},
		"PS256":        {func(tr *kuma.Trust) { tr.Keysets[0].Keys[0].Algorithm = "PS256-2048" }, config, []string{"is for PS256", "leave the keyset out"}},
		"no algorithm": {func(tr *kuma.Trust) { tr.Keysets[0].Keys[0].Algorithm = "" }, config, []string{"no known algorithm"}},
		"private": {func(tr *kuma.Trust) {
			tr.Keysets[0].Keys[0].PEM = "-----BEGIN RSA PRIVATE KEY-----\nAAAA\n-----END RSA PRIVATE KEY-----\n"
		}, config, []string{"not a public key"}},
		"private behind": {func(tr *kuma.Trust) {
			tr.Keysets[0].Keys[0].PEM += "-----BEGIN RSA PRIVATE KEY-----\nAAAA\n-----END RSA PRIVATE KEY-----\n"
		}, config, []string{"behind the first PEM block"}},
		"number":     {func(tr *kuma.Trust) { tr.Keysets[0].Keys[0].ID = "7" }, config, []string{`"7"`, "is a number"}},
		"no ID":      {func(tr *kuma.Trust) { tr.Keysets[0].Keys[0].ID = "" }, config, []string{"without an ID"}},
		"name":       {func(tr *kuma.Trust) { tr.Keysets[0].Keys[0].ID = "Zone_1" }, secrets, []string{"part of a secret's name", "--format config"}},
		"same ID":    {func(tr *kuma.Trust) { tr.Keysets = append(tr.Keysets, twin(tr.Keysets[0], "zone-eu")) }, config, []string{"there twice", `"zone-eu"`}},
		"two places": {func(tr *kuma.Trust) { tr.Keysets[2].Keys[0].PEM = read(t, "zone1.pub") }, config, []string{`"user-1-77aa02d3"`, `keyset "zone"`, "zonemint key retire"}},
		"two meshes": {func(tr *kuma.Trust) { tr.Keysets[0] = twin(tr.Keysets[1], "dataplane/eu"); tr.Keysets[0].Mesh = "eu" }, config, []string{`mesh "eu"`}},
		"place not exported": {func(tr *kuma.Trust) {
			tr.Others, tr.Keysets = tr.Keysets[1:], tr.Keysets[:1]
			tr.Others[0].Keys[0].PEM = read(t, "zone1.pub")
		}, secrets, []string{"dataplane/default"}},
		"place left out":   {func(tr *kuma.Trust) { tr.Keysets[2].Keys[0].PEM = read(t, "zone2.pub") }, config, []string{`"user"`}},
		"no keys":          {func(tr *kuma.Trust) { tr.Keysets[0].Keys = nil }, config, []string{`keyset "zone" has no key`, "zonemint key list"}},
		"only the other's": {func(tr *kuma.Trust) { tr.Keysets[0].Keys = tr.Keysets[0].Keys[1:] }, config, []string{`keyset "zone" has no key`}},
		"no mesh":          {func(tr *kuma.Trust) { tr.Keysets[1].Mesh = "" }, config, []string{"every mesh"}},
		"mesh":             {func(tr *kuma.Trust) { tr.Keysets[1].Mesh = "Def_ault" }, secrets, []string{`"Def_ault"`}},
		"token ID":         {func(tr *kuma.Trust) { tr.Keysets[0].Revoked = kuma.List{"a b"} }, secrets, []string{`"a b"`}},
		"too many revoked": {func(tr *kuma.Trust) { tr.Keysets[0].Revoked = kuma.List{strings.Repeat("x", kuma.MaxListSize+1)} }, secrets, []string{"zonemint key distrust"}},
		"all at once": {func(tr *kuma.Trust) { tr.Keysets[0].Keys[0].ID, tr.Keysets[1].Mesh, tr.Keysets[2].Keys = "7", "", nil }, config,
			[]string{"is a number", "every mesh", `keyset "user"`}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tr := trust(t)
			c.change(&tr)
			doc, err := c.made(tr)
			refused, ok := errors.AsType[*kuma.RefusedError](err)
			if !ok {
				t.Fatalf("error is %v", err)
			}
			for _, want := range c.says {
				if !strings.Contains(refused.Error(), want) {
					t.Errorf("%q is not in %q", want, refused)
				}
			}
			if text, err := doc.YAML(); len(text) > 0 || err != nil {
				t.Errorf("there is %q beside the error, %v", text, err)
			}
		})
	}
}

func twin(ks kuma.Keyset, name string) kuma.Keyset {
	ks.Name, ks.Keys = name, slices.Clone(ks.Keys)
	return ks
}

func TestKeysetsForTheSameTokensShareOneList(t *testing.T) {
	t.Parallel()
	tr := trust(t)
	eu := kuma.Keyset{Name: "zone-eu", Profile: token.ProfileZone, Revoked: kuma.List{"b2", "d4"}}
	tr.Keysets = append(tr.Keysets, eu)
	doc, err := tr.Universal(kuma.SecretOptions{Revocations: true})
	if err != nil {
		t.Fatal(err)
	}
	text, err := doc.YAML()
	if err != nil || !strings.Contains(string(text), "data: "+base64.StdEncoding.EncodeToString([]byte("a1,b2,d4"))) {
		t.Errorf("%s, %v", text, err)
	}
	if n := strings.Count(string(text), "name: zone-token-revocations"); n != 1 {
		t.Errorf("the list is there %d times", n)
	}
}

func TestNothingToExport(t *testing.T) {
	t.Parallel()
	tr := trust(t)
	tr.Keysets = tr.Keysets[2:] // user: no secrets for keys, and no revocations
	_, err := tr.Kubernetes("x", kuma.SecretOptions{Keys: true, Revocations: true})
	if !errors.Is(err, kuma.ErrNothing) || !strings.Contains(err.Error(), "--format config") || !strings.Contains(err.Error(), "delete GlobalSecret user-token-revocations") {
		t.Errorf("error is %v", err)
	}
}
