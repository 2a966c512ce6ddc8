// Package config reads the server's configuration file. It is strict: a field
// that it does not know, or a value that cannot be, is an error, and all errors
// are reported at once.
package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/go-viper/mapstructure/v2"
	"github.com/knadh/koanf/parsers/yaml"
	"github.com/knadh/koanf/providers/rawbytes"
	"github.com/knadh/koanf/v2"
	yamlv3 "go.yaml.in/yaml/v3"

	"github.com/zonemint/zonemint/backends"
)

// Config is a server's configuration. deploy/zonemint.yaml explains every field.
type Config struct {
	Listen        string `koanf:"listen"`
	PrivateListen string `koanf:"private_listen"`
	TLS           TLS    `koanf:"tls"`
	// Plaintext allows listening without TLS on an address that is not
	// loopback, for a server behind a proxy that ends TLS.
	Plaintext bool `koanf:"plaintext"`

	Database    Database    `koanf:"database"`
	InstanceKey InstanceKey `koanf:"instance_key"`

	Backends       backends.Config `koanf:"backends"`
	DefaultBackend string          `koanf:"default_backend"`
	Keysets        []Keyset        `koanf:"keysets"`
	Standby        Standby         `koanf:"standby"`

	Issuer     string        `koanf:"issuer"`
	Kuma       Kuma          `koanf:"kuma"`
	Legacy     LegacyTokens  `koanf:"legacy_tokens"`
	LeaseTTL   time.Duration `koanf:"lease_ttl"`
	JWKSMaxAge time.Duration `koanf:"jwks_max_age"`
	// JWKSStaleIfError may be zero: then caches that get errors have nothing to
	// go on with.
	JWKSStaleIfError time.Duration `koanf:"jwks_stale_if_error"`
	MaxClockOffset   time.Duration `koanf:"max_clock_offset"`
	ClockSkew        time.Duration `koanf:"clock_skew"`
	Retention        time.Duration `koanf:"retention"`
	Log              Log           `koanf:"log"`
	// GCPercent is the garbage collector's target unless GOGC is set. Requests
	// are short-lived and the live heap is small, so a high one costs a few
	// dozen megabytes and saves a fifth of the processor.
	GCPercent int `koanf:"gc_percent"`
}

// Standby is when the standby of a keyset signs instead of its own key; see
// service.Standby.
type Standby struct {
	Patience    time.Duration `koanf:"patience"`
	ReturnAfter time.Duration `koanf:"return_after"`
	Throttled   float64       `koanf:"throttled"`
}

// TLS names the server's certificate.
type TLS struct {
	CertFile string `koanf:"cert_file"`
	KeyFile  string `koanf:"key_file"`
}

// Database says where the state is: exactly one of the fields but Migrate.
type Database struct {
	Postgres     string `koanf:"postgres"`      // a URL without a password
	PostgresFile string `koanf:"postgres_file"` // a file with the URL
	PostgresEnv  string `koanf:"postgres_env"`  // a variable with the URL
	SQLite       string `koanf:"sqlite"`        // a file's path
	// Migrate applies pending migrations at start. Without it, a server whose
	// schema is not up to date refuses to start.
	Migrate bool `koanf:"migrate"`
}

// InstanceKey says where the instance key is: exactly one of the fields.
type InstanceKey struct {
	File string `koanf:"file"`
	Env  string `koanf:"env"`
}

// Kuma is how the server answers kumactl.
type Kuma struct {
	Product  string `koanf:"product"`
	Version  string `koanf:"version"`
	BasePath string `koanf:"base_path"`
}

// LegacyTokens turns on the old HS256 tokens of Kuma and Kong Mesh.
type LegacyTokens struct {
	ControlPlane bool `koanf:"control_plane"`
	ZoneIngress  bool `koanf:"zone_ingress"`
}

// Log says what is logged and how.
type Log struct {
	Level  string `koanf:"level"`
	Format string `koanf:"format"`
}

// Default returns the configuration that a file is read over.
func Default() Config {
	return Config{
		Listen: "127.0.0.1:8440", PrivateListen: "127.0.0.1:8441", DefaultBackend: "local",
		Kuma: Kuma{Product: "Kuma"}, LeaseTTL: 30 * time.Second, JWKSMaxAge: 5 * time.Minute,
		Standby:          Standby{Patience: 600 * time.Millisecond, ReturnAfter: 30 * time.Second, Throttled: 0.5},
		JWKSStaleIfError: 5 * time.Minute, MaxClockOffset: time.Minute, ClockSkew: time.Minute,
		Retention: 90 * 24 * time.Hour, Log: Log{Level: "info", Format: "json"}, GCPercent: 400,
	}
}

// Read reads and checks the file at path.
func Read(path string) (Config, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return Config{}, fmt.Errorf("configuration: %w", err)
	}
	c, err := Parse(data)
	if err != nil {
		return Config{}, fmt.Errorf("configuration %s:\n%w", path, err)
	}
	return c, nil
}

// Parse reads and checks a configuration in YAML.
func Parse(data []byte) (Config, error) {
	k := koanf.New(".")
	if err := k.Load(rawbytes.Provider(data), yaml.Parser()); err != nil {
		return Config{}, fmt.Errorf("not YAML: %w", err)
	}
	c := Default()
	err := k.UnmarshalWithConf("", &c, koanf.UnmarshalConf{DecoderConfig: &mapstructure.DecoderConfig{
		Result: &c, TagName: "koanf", ErrorUnused: true,
		MatchName:  func(key, field string) bool { return key == field },
		DecodeHook: mapstructure.ComposeDecodeHookFunc(unitlessDuration, mapstructure.StringToTimeDurationHookFunc()),
	}})
	return c, errors.Join(oneDocument(data), plainly(err), c.check())
}

// plainly gives the faults of decoding the form of all others.
func plainly(err error) error {
	if several, ok := errors.AsType[interface {
		error
		Unwrap() []error
	}](err); ok {
		var errs []error
		for _, inner := range several.Unwrap() {
			errs = append(errs, plainly(inner))
		}
		return errors.Join(errs...)
	}
	e, ok := errors.AsType[*mapstructure.DecodeError](err)
	if !ok {
		return err
	}
	text := strings.Replace(e.Unwrap().Error(), "has invalid keys: ", "there is no field ", 1)
	if e.Name() == "" {
		return errors.New(text)
	}
	return fmt.Errorf("%s: %s", e.Name(), text)
}

// oneDocument refuses a second YAML document, which would otherwise be ignored.
func oneDocument(data []byte) error {
	dec := yamlv3.NewDecoder(bytes.NewReader(data))
	var doc yamlv3.Node
	if err := dec.Decode(&doc); errors.Is(err, io.EOF) {
		return nil
	}
	if err := dec.Decode(&doc); !errors.Is(err, io.EOF) {
		return errors.New("there is more than one YAML document")
	}
	return nil
}

// unitlessDuration refuses numbers where a duration belongs: they would count
// nanoseconds.
func unitlessDuration(from, to reflect.Type, value any) (any, error) {
	if to == reflect.TypeFor[time.Duration]() && from.Kind() != reflect.String {
		return nil, fmt.Errorf("%v is not a duration, write it with a unit, for example 30s", value)
	}
	return value, nil
}

func (c Config) check() error {
	return errors.Join(c.checkListen(), c.TLS.check(), c.Database.check(), c.InstanceKey.check(), c.checkBackends(),
		c.checkKeysets(), c.checkIssuer(), c.Kuma.check(), c.checkNumbers(), c.Log.check())
}

func (c Config) checkListen() error {
	host, port, err := hostPort("listen", c.Listen)
	_, privatePort, privateErr := hostPort("private_listen", c.PrivateListen)
	errs := []error{err, privateErr}
	if err == nil && privateErr == nil && c.Listen == c.PrivateListen && port != "0" && privatePort != "0" {
		errs = append(errs, errors.New("private_listen: must differ from listen"))
	}
	if err == nil && c.TLS == (TLS{}) && !c.Plaintext && !loopback(host) {
		errs = append(errs, fmt.Errorf("listen: %s is not a loopback address: set tls.cert_file and tls.key_file, "+
			"or plaintext: true if something in front of it ends TLS", c.Listen))
	}
	return errors.Join(errs...)
}

func hostPort(name, addr string) (host, port string, err error) {
	host, port, err = net.SplitHostPort(addr)
	if _, perr := strconv.ParseUint(port, 10, 16); err != nil || perr != nil {
		return "", "", fmt.Errorf("%s: %q is not host:port", name, addr)
	}
	return host, port, nil
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

func (t TLS) check() error {
	if (t.CertFile == "") != (t.KeyFile == "") {
		return errors.New("tls: cert_file and key_file go together")
	}
	return nil
}

func (d Database) check() error {
	if n := count(d.Postgres, d.PostgresFile, d.PostgresEnv, d.SQLite); n != 1 {
		return errors.New("database: set exactly one of postgres, postgres_file, postgres_env and sqlite")
	}
	if d.Postgres == "" {
		return nil
	}
	u, err := url.Parse(d.Postgres) // whose error may quote a password
	if err != nil || u.Scheme != "postgres" && u.Scheme != "postgresql" {
		return errors.New("database.postgres: is not a URL like postgres://user@host/name")
	}
	_, secret := u.User.Password()
	for name := range u.Query() {
		secret = secret || strings.Contains(strings.ToLower(name), "password")
	}
	if secret {
		return errors.New("database.postgres: holds a password: use postgres_file or postgres_env, or a .pgpass file")
	}
	return nil
}

// URL returns the URL of the Postgres database, "" if it is SQLite.
func (d Database) URL() (string, error) {
	switch {
	case d.PostgresFile != "":
		b, err := os.ReadFile(d.PostgresFile)
		if err != nil {
			return "", fmt.Errorf("database.postgres_file: %w", err)
		}
		return strings.TrimSpace(string(b)), nil
	case d.PostgresEnv != "":
		v, ok := os.LookupEnv(d.PostgresEnv)
		if !ok {
			return "", fmt.Errorf("database.postgres_env: %s is not set", d.PostgresEnv)
		}
		return v, nil
	default:
		return d.Postgres, nil
	}
}

func (k InstanceKey) check() error {
	if count(k.File, k.Env) != 1 {
		return errors.New("instance_key: set exactly one of file and env; \"zonemint instance-key generate\" makes one")
	}
	return nil
}

func count(values ...string) (n int) {
	for _, v := range values {
		if v != "" {
			n++
		}
	}
	return n
}

func (c Config) checkBackends() error {
	var errs []error
	if err := c.Backends.Check(); err != nil {
		errs = append(errs, fmt.Errorf("backends: %w", err))
	}
	if _, ok := c.Backends[c.DefaultBackend]; !ok && c.DefaultBackend != "local" {
		errs = append(errs, fmt.Errorf("default_backend: %q is not under backends", c.DefaultBackend))
	}
	return errors.Join(errs...)
}

func (c Config) checkIssuer() error {
	if c.Issuer == "" {
		return nil
	}
	u, err := url.Parse(c.Issuer)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return errors.New("issuer: is not an https URL without user, query and fragment")
	}
	return nil
}

// basePath is a path of plain segments: it becomes a pattern of the router.
var basePath = regexp.MustCompile(`^(/[a-zA-Z0-9._~-]+)+$`)

func (k Kuma) check() error {
	switch p := k.BasePath; {
	case p == "":
	case !basePath.MatchString(p) || path.Clean(p) != p:
		return fmt.Errorf("kuma.base_path: %q is not a path like \"/kuma\", without a slash at its end", p)
	case strings.HasPrefix(p, "/.well-known"):
		return fmt.Errorf("kuma.base_path: %q is not free: documents of zonemint are below /.well-known", p)
	}
	return nil
}

// maxCaching is how long verifiers may use a JWK set that they cannot ask for
// again. What a replica has served is remembered for a day.
const maxCaching = 24 * time.Hour

func (c Config) checkNumbers() error {
	var errs []error
	for _, d := range []struct {
		name         string
		value, least time.Duration
	}{
		{"lease_ttl", c.LeaseTTL, time.Second}, {"jwks_max_age", c.JWKSMaxAge, time.Second},
		{"clock_skew", c.ClockSkew, time.Millisecond}, {"retention", c.Retention, time.Hour},
		// Less says nothing of a backend: callers with short deadlines must not
		// have it taken for down.
		{"standby.patience", c.Standby.Patience, 500 * time.Millisecond},
		{"standby.return_after", c.Standby.ReturnAfter, time.Second},
	} {
		if d.value < d.least {
			errs = append(errs, fmt.Errorf("%s: must be at least %s", d.name, d.least))
		}
	}
	if c.Standby.Throttled <= 0 || c.Standby.Throttled > 1 {
		errs = append(errs, errors.New("standby.throttled: must be more than 0 and at most 1"))
	}
	if c.JWKSStaleIfError < 0 {
		errs = append(errs, errors.New("jwks_stale_if_error: must not be negative"))
	}
	// Compared so that no sum overflows. Both are waited for before a key is used.
	if c.JWKSMaxAge > maxCaching || c.JWKSStaleIfError > maxCaching-c.JWKSMaxAge {
		errs = append(errs, fmt.Errorf("jwks_max_age, jwks_stale_if_error: must be at most %s together", maxCaching))
	}
	if c.MaxClockOffset <= 0 || c.MaxClockOffset >= time.Hour {
		errs = append(errs, errors.New("max_clock_offset: must be more than 0s and less than 1h"))
	}
	if c.GCPercent < 1 {
		errs = append(errs, errors.New("gc_percent: must be at least 1"))
	}
	return errors.Join(errs...)
}

func (l Log) check() error {
	var errs []error
	var level slog.Level
	if err := level.UnmarshalText([]byte(l.Level)); err != nil {
		errs = append(errs, fmt.Errorf("log.level: %q is not one of debug, info, warn, error", l.Level))
	}
	if l.Format != "json" && l.Format != "text" {
		errs = append(errs, fmt.Errorf("log.format: %q is not json or text", l.Format))
	}
	return errors.Join(errs...)
}
