package awskms

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"net/url"
	"os"
	"regexp"
	"strings"
	"time"
)

// Options say which KMS to use and how to make and delete keys. Tags name the
// settings of a configuration file. Credentials are none of them: they come from
// where the AWS SDK looks for them, which is the environment, the shared
// configuration and credentials files, web identity, containers and instances.
type Options struct {
	// Region is where the keys are. Empty means what the SDK's configuration says.
	Region string `setting:"region"`
	// Endpoint is the https:// address of another endpoint than the Region's own,
	// such as that of a VPC. http:// is for this machine only.
	Endpoint string `setting:"endpoint"`
	// Profile is one of the shared configuration files; empty means the SDK's choice.
	Profile string `setting:"profile"`

	// KeyPolicyFile is a file with the key policy of new keys, JSON of at most 32 KiB.
	// Empty means the service's default, which leaves everything to IAM.
	KeyPolicyFile string `setting:"key_policy_file"`
	// Tags are put on new keys beside zonemint's own.
	Tags map[string]string `setting:"tags"`
	// AliasPrefix, if there is one, gives new keys an alias for people to read,
	// "alias/PREFIXkeyset/serial/label". Nothing depends on it.
	AliasPrefix string `setting:"alias_prefix"`
	// MultiRegion makes new keys multi-Region primary keys, so that they can be
	// replicated. It cannot be changed later.
	MultiRegion bool `setting:"multi_region"`

	// DeletionWindowDays is how long a key that is to be destroyed can still be
	// saved, 7 to 30. 0 means 30.
	DeletionWindowDays int `setting:"deletion_window_days"`
	// MinIdle is for how long nobody may have used a key that is to be destroyed. Nil
	// means 24 hours, 0 does not ask.
	MinIdle *time.Duration `setting:"min_idle"`

	// SkipUnreadableKeys lets a search pass over keys that the credential may not
	// read. Otherwise they fail it, because one of them could be zonemint's, and who
	// takes a key for missing makes another one.
	SkipUnreadableKeys bool `setting:"skip_unreadable_keys"`
	// ConsistencyWindow is how long a new key may be invisible, 90 s at the most. 0
	// means a minute: KMS speaks of a few seconds, and of several minutes in some cases.
	ConsistencyWindow time.Duration `setting:"consistency_window"`
	// RequestTimeout bounds one call whose context has no earlier end. 0 means 10 s.
	RequestTimeout time.Duration `setting:"request_timeout"`

	// MaxSignaturesPerSecond is this process's share of the account's quota for the
	// Region. 0 means as many as the service bears.
	MaxSignaturesPerSecond float64 `setting:"max_signatures_per_second"`
	// MaxWaiting is how many signatures may wait for their turn. 0 means 256.
	MaxWaiting int `setting:"max_waiting"`

	Logger *slog.Logger     `setting:"-"` // nil means slog.Default()
	Now    func() time.Time `setting:"-"` // nil means time.Now
}

const (
	maxPolicy = 32 << 10
	maxTags   = 50
	tagPrefix = "zonemint:"
	// maxWindow leaves some of the two minutes that a replica has to make a key in: it
	// waits for the window before it looks for one that another replica may have made.
	maxWindow    = 90 * time.Second
	maxAliasPart = 64 // of an alias's 256 characters; a keyset, a serial and a label follow
)

const endpointRule = "has to be https://HOST or https://HOST:PORT, with nothing after it and no credentials in it; http:// is for this machine only"

var (
	regionName = regexp.MustCompile(`^([a-z]{2,}(-[a-z0-9]+)+)?$`)
	aliasPart  = regexp.MustCompile(`^[A-Za-z0-9/_-]*$`)
	tagText    = regexp.MustCompile(`^[\p{L}\p{Z}\p{N}_.:/=+\-@]*$`)
)

func (o Options) complete() Options {
	if o.DeletionWindowDays == 0 {
		o.DeletionWindowDays = 30
	}
	if o.MinIdle == nil {
		o.MinIdle = new(24 * time.Hour)
	}
	if o.ConsistencyWindow == 0 {
		o.ConsistencyWindow = time.Minute
	}
	if o.RequestTimeout == 0 {
		o.RequestTimeout = 10 * time.Second
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return o
}

// check names all faults at once.
func (o Options) check() error {
	var errs []error
	bad := func(is bool, what string) {
		if is {
			errs = append(errs, errors.New(what))
		}
	}
	bad(!regionName.MatchString(o.Region), "the setting region has to be an AWS Region, for example eu-central-1")
	bad(o.Endpoint != "" && !endpointFits(o.Endpoint), "the setting endpoint "+endpointRule)
	bad(!aliasPart.MatchString(o.AliasPrefix) || len(o.AliasPrefix) > maxAliasPart || strings.HasPrefix(o.AliasPrefix, "aws/"),
		"the setting alias_prefix may have up to 64 letters, digits, '/', '_' and '-', and does not begin with aws/")
	bad(o.DeletionWindowDays < 7 || o.DeletionWindowDays > 30, "the setting deletion_window_days has to be 7 to 30")
	bad(*o.MinIdle < 0, "the setting min_idle is negative")
	bad(o.ConsistencyWindow < 0, "the setting consistency_window is negative")
	bad(o.ConsistencyWindow > maxWindow, "the setting consistency_window may be 90s at the most: keys are made within two minutes, and that includes it")
	bad(o.RequestTimeout < 0, "the setting request_timeout is negative")
	bad(!(o.MaxSignaturesPerSecond >= 0) || math.IsInf(o.MaxSignaturesPerSecond, 1), "the setting max_signatures_per_second has to be a number that is not negative")
	bad(o.MaxWaiting < 0, "the setting max_waiting is negative")
	return errors.Join(append(errs, o.checkTags()...)...)
}

func (o Options) checkTags() (errs []error) {
	if len(o.Tags)+len(ownTags) > maxTags {
		errs = append(errs, fmt.Errorf("the setting tags has %d tags, and a key can have %d beside zonemint's own", len(o.Tags), maxTags-len(ownTags)))
	}
	for name, value := range o.Tags {
		switch {
		case name == "" || len([]rune(name)) > 128 || len([]rune(value)) > 256 || !tagText.MatchString(name+value):
			errs = append(errs, fmt.Errorf("the setting tags: %.40q is too long, or has characters that tags cannot have", name))
		case strings.HasPrefix(strings.ToLower(name), "aws:") || strings.HasPrefix(name, tagPrefix):
			errs = append(errs, fmt.Errorf("the setting tags: %.40q begins with aws: or %s, which are taken", name, tagPrefix))
		}
	}
	return errs
}

func endpointFits(text string) bool {
	u, err := url.Parse(text)
	if err != nil || u.User != nil || u.RawQuery != "" || u.Fragment != "" || u.Hostname() == "" || strings.Trim(u.Path, "/") != "" {
		return false
	}
	ip := net.ParseIP(u.Hostname())
	local := u.Hostname() == "localhost" || ip != nil && ip.IsLoopback()
	return u.Scheme == "https" || u.Scheme == "http" && local
}

// readPolicy reads the policy of new keys. Whether it lets the right people in, KMS
// says when the first key is made.
func (o Options) readPolicy() (string, error) {
	if o.KeyPolicyFile == "" {
		return "", nil
	}
	text, err := os.ReadFile(o.KeyPolicyFile)
	if err != nil {
		return "", fmt.Errorf("the setting key_policy_file: %w", err)
	}
	if len(text) > maxPolicy || !json.Valid(text) {
		return "", fmt.Errorf("the setting key_policy_file names a file that is not a JSON document of at most %d bytes", maxPolicy)
	}
	return string(text), nil
}
