package gcpkms

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"os"
	"regexp"
	"time"

	"cloud.google.com/go/kms/apiv1/kmspb"
)

// Options say where the keys are. Tags name the settings of a configuration file.
// Credentials are Application Default Credentials, unless a file is named.
type Options struct {
	Project  string `setting:"project"`  // ID of the project that has the key ring
	Location string `setting:"location"` // such as "europe-west4"
	// KeyRing is the ID of a key ring that exists, or its full name,
	// projects/P/locations/L/keyRings/R, without Project and Location then.
	KeyRing string `setting:"key_ring"`

	// ProtectionLevel of new keys: "hsm", or "software". A key of a lower level is not
	// signed with, whoever made it. Empty means hsm.
	ProtectionLevel string `setting:"protection_level"`
	// DestroyScheduledDuration is how long new keys can be restored once they
	// were destroyed, 24 h to 120 days. It cannot be changed for a key. 0 leaves it to the
	// service: 30 days.
	DestroyScheduledDuration time.Duration `setting:"destroy_scheduled_duration"`

	// Endpoint is the HOST:PORT of the API, over TLS; empty for the service's own.
	Endpoint string `setting:"endpoint"`
	CAFile   string `setting:"ca_file"` // PEM of the authorities to trust; empty for the system's
	// InsecureEndpoint is the HOST:PORT of an emulator on this machine, which is spoken to
	// in plain text and without a credential.
	InsecureEndpoint string `setting:"insecure_endpoint"`
	// CredentialsFile is a credential in JSON: a service account's key, or how to get
	// at one by federation or impersonation.
	CredentialsFile string `setting:"credentials_file"`

	// RequestTimeout bounds one request whose context has no earlier end. 0 means 10 s.
	RequestTimeout time.Duration `setting:"request_timeout"`
	// GenerationTimeout bounds how long a new key is waited for. 0 means 90 s: the service
	// says that it may take minutes, but the server gives one attempt at making a key 110 s.
	// The next attempt finds the same key and goes on waiting.
	GenerationTimeout time.Duration `setting:"generation_timeout"`
	// MaxConnections is how many connections there are; the service carries about 100
	// requests at a time on each. 0 means 4.
	MaxConnections int `setting:"max_connections"`
	// MaxSignaturesPerSecond is what is asked of the service at the most, by this
	// process. 0 is as much as it bears.
	MaxSignaturesPerSecond float64 `setting:"max_signatures_per_second"`
	// MaxWaiting is how many signatures may wait for their turn then. 0 means 256.
	MaxWaiting int `setting:"max_waiting"`

	Logger *slog.Logger `setting:"-"` // nil means slog.Default()
}

// connectionsMost bounds MaxConnections against a slip of the pen.
const connectionsMost = 256

func (o Options) complete() Options {
	if o.Project != "" && o.Location != "" {
		o.KeyRing = fmt.Sprintf("projects/%s/locations/%s/keyRings/%s", o.Project, o.Location, o.KeyRing)
	}
	if o.ProtectionLevel == "" {
		o.ProtectionLevel = "hsm"
	}
	if o.RequestTimeout == 0 {
		o.RequestTimeout = 10 * time.Second
	}
	if o.GenerationTimeout == 0 {
		o.GenerationTimeout = 90 * time.Second
	}
	if o.MaxConnections == 0 {
		o.MaxConnections = 4
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	return o
}

// check names all faults at once. It is for options that are complete.
func (o Options) check() error {
	var errs []error
	bad := func(is bool, what string) {
		if is {
			errs = append(errs, errors.New(what))
		}
	}
	const day = 24 * time.Hour
	bad((o.Project == "") != (o.Location == "") || !isRing(o.KeyRing),
		"the setting key_ring has to be projects/P/locations/L/keyRings/R, or R with the settings project and location beside it")
	bad(o.ProtectionLevel != "hsm" && o.ProtectionLevel != "software", "the setting protection_level has to be hsm or software")
	bad(o.DestroyScheduledDuration != 0 && (o.DestroyScheduledDuration < day || o.DestroyScheduledDuration > 120*day),
		"the setting destroy_scheduled_duration has to be between 24h and 2880h, which are 120 days")
	bad(o.Endpoint != "" && !isAddress(o.Endpoint), "the setting endpoint has to be HOST:PORT")
	bad(o.InsecureEndpoint != "" && !isLoopback(o.InsecureEndpoint),
		"the setting insecure_endpoint has to be HOST:PORT of this machine: whoever is on the way could sign")
	bad(o.InsecureEndpoint != "" && (o.Endpoint != "" || o.CAFile != "" || o.CredentialsFile != ""),
		"the setting insecure_endpoint goes with none of endpoint, ca_file and credentials_file")
	bad(o.RequestTimeout < 0, "the setting request_timeout is negative")
	bad(o.GenerationTimeout < 0, "the setting generation_timeout is negative")
	bad(o.MaxConnections < 0 || o.MaxConnections > connectionsMost, fmt.Sprintf("the setting max_connections has to be 1 to %d", connectionsMost))
	bad(!(o.MaxSignaturesPerSecond >= 0) || math.IsInf(o.MaxSignaturesPerSecond, 1), "the setting max_signatures_per_second has to be 0, for no bound, or more")
	bad(o.MaxWaiting < 0, "the setting max_waiting is negative")
	return errors.Join(errs...)
}

// level is the least protection of a key that is signed with.
func (o Options) level() kmspb.ProtectionLevel {
	if o.ProtectionLevel == "software" {
		return kmspb.ProtectionLevel_SOFTWARE
	}
	return kmspb.ProtectionLevel_HSM
}

func (o Options) tlsConfig() (*tls.Config, error) {
	cfg := &tls.Config{MinVersion: tls.VersionTLS12}
	if o.CAFile == "" {
		return cfg, nil
	}
	text, err := os.ReadFile(o.CAFile)
	if err != nil {
		return nil, fmt.Errorf("the setting ca_file: %w", err)
	}
	cfg.RootCAs = x509.NewCertPool()
	if !cfg.RootCAs.AppendCertsFromPEM(text) {
		return nil, errors.New("the setting ca_file names a file without a certificate in PEM")
	}
	return cfg, nil
}

func isAddress(s string) bool {
	host, port, err := net.SplitHostPort(s)
	return err == nil && regexp.MustCompile(`^[A-Za-z0-9.:-]+$`).MatchString(host) && regexp.MustCompile(`^[0-9]{1,5}$`).MatchString(port)
}

func isLoopback(s string) bool {
	host, _, _ := net.SplitHostPort(s)
	ip := net.ParseIP(host)
	return isAddress(s) && (host == "localhost" || ip != nil && ip.IsLoopback())
}
