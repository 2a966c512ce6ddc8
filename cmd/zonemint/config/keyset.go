package config

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"buf.build/go/protovalidate"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/zonemint/zonemint/proto/zonemint/v1"
	"github.com/zonemint/zonemint/signer"
)

// Keyset is made on the first start. After that its policy is in the database.
type Keyset struct {
	Name            string         `koanf:"name"`
	Profile         string         `koanf:"profile"`
	Algorithm       string         `koanf:"algorithm"`
	Backend         string         `koanf:"backend"`
	Distribution    string         `koanf:"distribution"`
	MaxValidFor     time.Duration  `koanf:"max_valid_for"`
	DefaultValidFor time.Duration  `koanf:"default_valid_for"`
	Backdate        *time.Duration `koanf:"backdate"` // nil: the default, which is not 0
	RotateEvery     time.Duration  `koanf:"rotate_every"`
	PublishAhead    time.Duration  `koanf:"publish_ahead"`
	Consumers       []string       `koanf:"consumers"`
	Mesh            string         `koanf:"mesh"`
	AllowMeshSystem bool           `koanf:"allow_mesh_system"`
	Standby         string         `koanf:"standby"`
	// AllowWeakerStandby allows a standby with a weaker custody.
	AllowWeakerStandby bool `koanf:"allow_weaker_standby"`
}

func (c Config) checkKeysets() error {
	var errs []error
	names := map[string]bool{}
	for i, k := range c.Keysets {
		fault := func(err error) { errs = append(errs, fmt.Errorf("keysets[%d]: %w", i, err)) }
		if _, err := k.Proto(); err != nil {
			fault(errors.New(strings.ReplaceAll(err.Error(), "\n", "; ")))
		}
		if _, ok := c.Backends[k.Backend]; !ok && k.Backend != "" && k.Backend != c.DefaultBackend {
			fault(fmt.Errorf("backend: %q is neither under backends nor the default", k.Backend))
		}
		if _, ok := c.Backends[k.Standby]; !ok && k.Standby != "" && k.Standby != c.DefaultBackend {
			fault(fmt.Errorf("standby: %q is neither under backends nor the default", k.Standby))
		}
		if names[k.Name] {
			fault(fmt.Errorf("name: %q is there twice", k.Name))
		}
		names[k.Name] = true
	}
	return errors.Join(errs...)
}

// Proto returns the keyset as the API has it. It is checked by the API's own
// rules for names, lengths and ranges.
func (k Keyset) Proto() (*pb.Keyset, error) {
	var errs []error
	profile, ok := pb.Profile_value["PROFILE_"+strings.ToUpper(k.Profile)]
	if !ok || profile == 0 {
		errs = append(errs, fmt.Errorf("profile: %q is not one of zone, dataplane, user", k.Profile))
	}
	way := strings.ToUpper(strings.ReplaceAll(k.Distribution, "-", "_"))
	distribution, ok := pb.Distribution_value["DISTRIBUTION_"+way]
	if way != "" && (!ok || distribution == 0) {
		errs = append(errs, fmt.Errorf("distribution: %q is not one of jwks, kuma-sync, manual", k.Distribution))
	}
	if k.Algorithm != "" {
		if _, err := signer.Parse(k.Algorithm); err != nil {
			errs = append(errs, fmt.Errorf("algorithm: %w", err))
		}
	}
	if k.MaxValidFor > 0 && k.DefaultValidFor > k.MaxValidFor {
		errs = append(errs, errors.New("default_valid_for: is longer than max_valid_for"))
	}
	out := &pb.Keyset{
		Name: k.Name, Profile: pb.Profile(profile), Algorithm: k.Algorithm, Backend: k.Backend,
		Distribution: pb.Distribution(distribution), MaxValidFor: optional(k.MaxValidFor),
		DefaultValidFor: optional(k.DefaultValidFor), RotateEvery: optional(k.RotateEvery),
		PublishAhead: optional(k.PublishAhead), Consumers: k.Consumers,
		Mesh: k.Mesh, AllowMeshSystem: k.AllowMeshSystem, Standby: k.Standby, AllowWeakerStandby: k.AllowWeakerStandby,
	}
	if k.Backdate != nil {
		out.Backdate = durationpb.New(*k.Backdate)
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	err := protovalidate.Validate(out)
	violated, ok := errors.AsType[*protovalidate.ValidationError](err)
	if !ok {
		return out, err
	}
	for _, v := range violated.Violations {
		errs = append(errs, fmt.Errorf("%s: %s", protovalidate.FieldPathString(v.Proto.GetField()), v.Proto.GetMessage()))
	}
	return nil, errors.Join(errs...)
}

func optional(d time.Duration) *durationpb.Duration {
	if d == 0 {
		return nil
	}
	return durationpb.New(d)
}
