package config_test

import (
	"errors"
	"io/fs"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/zonemint/zonemint/cmd/zonemint/config"
)

const least = `
database: {sqlite: zonemint.db}
instance_key: {file: instance.key}
`

func TestParse(t *testing.T) {
	t.Parallel()
	c, err := config.Parse([]byte(least + `
listen: 127.0.0.1:9000
lease_ttl: 1m
keysets:
- {name: dataplane/default, profile: dataplane, algorithm: RS256-4096, max_valid_for: 24h}
`))
	if err != nil {
		t.Fatal(err)
	}
	if c.Listen != "127.0.0.1:9000" || c.LeaseTTL != time.Minute || c.Database.SQLite != "zonemint.db" {
		t.Errorf("not what the file says: %+v", c)
	}
	if c.JWKSMaxAge != config.Default().JWKSMaxAge || c.JWKSStaleIfError != 5*time.Minute || c.MaxClockOffset != time.Minute {
		t.Errorf("jwks_max_age = %s, jwks_stale_if_error = %s, max_clock_offset = %s, want the defaults",
			c.JWKSMaxAge, c.JWKSStaleIfError, c.MaxClockOffset)
	}
	ks, err := c.Keysets[0].Proto()
	if err != nil || ks.GetMaxValidFor().AsDuration() != 24*time.Hour || ks.GetBackdate() != nil {
		t.Errorf("keyset = %v, %v", ks, err)
	}
}

// Each row is a file and what the error must say, all of it at once.
func TestParseRefuses(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		file string
		want []string
	}{
		"nothing":             {"", []string{"database: set exactly one", "instance_key: set exactly one"}},
		"not YAML":            {"{", []string{"not YAML"}},
		"a list":              {"- a", []string{"not YAML"}},
		"two documents":       {least + "---\nlisten: 127.0.0.1:1\n", []string{"more than one YAML document"}},
		"the same key twice":  {least + "plaintext: true\nplaintext: false\n", []string{"already defined"}},
		"an unknown field":    {least + "listne: 127.0.0.1:1\n", []string{"listne"}},
		"an unknown field in": {strings.Replace(least, "sqlite:", "sqlight:", 1), []string{"sqlight", "database: set exactly one"}},
		"another case":        {least + "Listen: 127.0.0.1:1\n", []string{"Listen"}},
		"another type":        {least + "plaintext: 'yes'\n", []string{"plaintext"}},
		"duration, no unit":   {least + "lease_ttl: 30\n", []string{"lease_ttl", "30 is not a duration"}},
		"two databases":       {least + "database: {sqlite: a, postgres_env: B}\n", []string{"already defined"}},
		"everything": {
			`listen: nowhere
private_listen: 127.0.0.1:x
tls: {cert_file: a.pem}
database: {sqlite: a, postgres_env: B}
instance_key: {file: a, env: B}
backends: {abacus: {}}
default_backend: slide-rule
issuer: http://insecure.example.com
lease_ttl: 1ms
jwks_max_age: 0s
clock_skew: 0s
jwks_stale_if_error: 24h0m1s
max_clock_offset: 1h
retention: 1s
gc_percent: 0
log: {level: loud, format: xml}
keysets:
- {name: zone, profile: zoo, algorithm: HS256, distribution: pigeon, backend: sundial}
- {name: zone, profile: zone, max_valid_for: 1h, default_valid_for: 2h}
- {name: Upper, profile: zone}
`,
			[]string{
				`listen: "nowhere" is not host:port`, `private_listen: "127.0.0.1:x"`, "tls: cert_file and key_file",
				"database: set exactly one", "instance_key: set exactly one", `backends: there is no backend "abacus"`,
				`default_backend: "slide-rule"`, "issuer:", "lease_ttl:", "jwks_max_age:", "clock_skew:", "retention:", "must be at most 24h0m0s together",
				"max_clock_offset: must be more than 0s and less than 1h", "gc_percent:",
				"log.level:", "log.format:", "keysets[0]: profile:", "distribution:", "algorithm:", `backend: "sundial"`,
				`keysets[1]: default_valid_for`, `keysets[1]: name: "zone" is there twice`, "keysets[2]:", "one or two labels",
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := config.Parse([]byte(tc.file))
			if err == nil {
				t.Fatal("was accepted")
			}
			for _, want := range tc.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("the error does not say %q:\n%v", want, err)
				}
			}
		})
	}
}

// TLS may be left out on loopback, or if the file says that it is meant.
func TestPlaintextIsSaid(t *testing.T) {
	t.Parallel()
	for file, ok := range map[string]bool{
		"listen: 127.0.0.1:8440":                true,
		"listen: '[::1]:8440'":                  true,
		"listen: localhost:8440":                true,
		"listen: 0.0.0.0:8440":                  false,
		"listen: :8440":                         false,
		"listen: zonemint.example.com:8440":     false,
		"listen: 0.0.0.0:8440\nplaintext: true": true,
		"listen: 0.0.0.0:8440\ntls: {cert_file: a.pem, key_file: b.pem}": true,
		"listen: 127.0.0.1:8440\nprivate_listen: 127.0.0.1:8440":         false,
	} {
		if _, err := config.Parse([]byte(least + file)); (err == nil) != ok {
			t.Errorf("%q: %v", file, err)
		}
	}
}

// A configuration file ends up in repositories and tickets.
func TestPasswordsAreRefused(t *testing.T) {
	t.Parallel()
	const secret = "hunter2"
	for url, ok := range map[string]bool{
		"postgres://zonemint@db.example.com/zonemint":                   true,
		"postgresql:///zonemint?host=/run/postgresql&sslmode=disable":   true,
		"postgres://zonemint:" + secret + "@db.example.com/zonemint":    false,
		"postgres://db.example.com/zonemint?user=a&password=" + secret:  false,
		"postgres://db.example.com/zonemint?sslpassword=" + secret:      false,
		"postgres://zonemint:" + secret + "%zz@db.example.com/zonemint": false,
		"host=db.example.com user=zonemint password=" + secret:          false,
		"mysql://zonemint:" + secret + "@db.example.com/zonemint":       false,
	} {
		_, err := config.Parse([]byte("database: {postgres: '" + url + "'}\ninstance_key: {env: KEY}\n"))
		if (err == nil) != ok {
			t.Errorf("%s: %v", url, err)
		}
		if err != nil && strings.Contains(err.Error(), secret) {
			t.Errorf("the error repeats the password: %v", err)
		}
	}
}

func TestReadNamesTheFile(t *testing.T) {
	t.Parallel()
	path := t.TempDir() + "/zonemint.yaml"
	if _, err := config.Read(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing file: %v", err)
	}
	if err := os.WriteFile(path, []byte("nonsense: true"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := config.Read(path); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("the error does not name the file: %v", err)
	}
}

func TestDatabaseURL(t *testing.T) {
	const url = "postgres://zonemint:secret@db/zonemint"
	path := t.TempDir() + "/url"
	if err := os.WriteFile(path, []byte(url+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("ZONEMINT_TEST_URL", url)
	for _, d := range []config.Database{{PostgresFile: path}, {PostgresEnv: "ZONEMINT_TEST_URL"}, {Postgres: url}} {
		if got, err := d.URL(); err != nil || got != url {
			t.Errorf("%+v: %q, %v", d, got, err)
		}
	}
	for _, d := range []config.Database{{PostgresFile: path + "x"}, {PostgresEnv: "ZONEMINT_TEST_NOT_SET"}} {
		if _, err := d.URL(); err == nil {
			t.Errorf("%+v: no error", d)
		}
	}
}

// The examples that people copy must be right.
func TestDeployedFiles(t *testing.T) {
	t.Parallel()
	for _, name := range examples(t) {
		if _, err := config.Read(name); err != nil {
			t.Error(err)
		}
	}
}

func examples(t testing.TB) []string {
	t.Helper()
	found, err := fs.Glob(os.DirFS("../../../deploy"), "zonemint*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if len(found) == 0 {
		t.Skip("there is no deploy/zonemint.yaml")
	}
	for i := range found {
		found[i] = "../../../deploy/" + found[i]
	}
	return found
}

// FuzzParse: no file makes the parser panic, and what it accepts obeys the rules
// that everything else relies on.
func FuzzParse(f *testing.F) {
	f.Add([]byte(least))
	f.Add([]byte(least + "keysets: [{name: zone, profile: zone, backdate: 5s}]\nbackends: {local: {insecure: true}}\n"))
	f.Add([]byte("database: {postgres: 'postgres://a:b@c/d'}\n---\n{}"))
	f.Add([]byte("a: &a [*a]\n<<: {b: c}\n"))
	f.Add([]byte("listen: 0.0.0.0:8440\nplaintext: true\nlease_ttl: 9223372036854775807ns\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := config.Parse(data)
		if err != nil {
			return
		}
		set := []string{c.Database.Postgres, c.Database.PostgresFile, c.Database.PostgresEnv, c.Database.SQLite}
		if set = slices.DeleteFunc(set, func(s string) bool { return s == "" }); len(set) != 1 {
			t.Errorf("accepted %d databases", len(set))
		}
		if c.MaxClockOffset <= 0 || c.JWKSStaleIfError < 0 || c.JWKSMaxAge+c.JWKSStaleIfError > 24*time.Hour {
			t.Errorf("accepted %+v", c)
		}
		if c.LeaseTTL < time.Second || c.JWKSMaxAge < time.Second || c.Retention < time.Hour || c.GCPercent < 1 {
			t.Errorf("accepted %+v", c)
		}
		for _, k := range c.Keysets {
			if _, err := k.Proto(); err != nil {
				t.Errorf("accepted keyset %+v: %v", k, err)
			}
		}
	})
}

// Numbers at their bounds and past them; an error names the field that is wrong.
func TestBounds(t *testing.T) {
	t.Parallel()
	for text, wrong := range map[string]string{
		"jwks_stale_if_error: 0s": "", "jwks_max_age: 23h\njwks_stale_if_error: 1h": "", "jwks_max_age: 24h\njwks_stale_if_error: 0s": "",
		"jwks_stale_if_error: -1s": "jwks_stale_if_error", "jwks_max_age: 24h": "jwks_max_age, jwks_stale_if_error",
		"jwks_max_age: 2562047h\njwks_stale_if_error: 2562047h": "jwks_max_age, jwks_stale_if_error",
		"max_clock_offset: 1ns":                                 "", "max_clock_offset: 59m59s": "", "max_clock_offset: 0s": "max_clock_offset",
		"max_clock_offset: -1s": "max_clock_offset", "max_clock_offset: 60m": "max_clock_offset",
	} {
		_, err := config.Parse([]byte(least + text + "\n"))
		if wrong == "" && err != nil || wrong != "" && (err == nil || !strings.Contains(err.Error(), wrong+": must")) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestBackdateOfZeroIsZero(t *testing.T) {
	c, err := config.Parse([]byte(least + "keysets: [{name: zone, profile: zone, backdate: 0s}]\n"))
	if err != nil {
		t.Fatal(err)
	}
	ks, err := c.Keysets[0].Proto()
	if err != nil || ks.GetBackdate() == nil || ks.GetBackdate().AsDuration() != 0 {
		t.Errorf("backdate is %v (%v), want 0", ks.GetBackdate(), err)
	}
}
