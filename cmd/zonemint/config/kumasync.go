package config

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"regexp"
	"slices"
	"time"

	"github.com/go-viper/mapstructure/v2"
	"github.com/knadh/koanf/parsers/yaml"
	"github.com/knadh/koanf/providers/rawbytes"
	"github.com/knadh/koanf/v2"
)

// KumaSync is the configuration of "zonemint kuma sync". deploy/kuma-sync.yaml
// explains every field.
type KumaSync struct {
	Zonemint      Zonemint       `koanf:"zonemint"`
	ControlPlanes []ControlPlane `koanf:"control_planes"`
	Log           Log            `koanf:"log"`
}

// Zonemint says how to reach zonemint. What is empty comes from the environment, as
// it does for commands.
type Zonemint struct {
	Addr      string `koanf:"addr"`
	TokenFile string `koanf:"token_file"`
	CAFile    string `koanf:"ca_file"`
}

// ControlPlane is a global control plane: exactly one of REST and Kubernetes says
// where.
type ControlPlane struct {
	Name       string        `koanf:"name"`
	Keysets    []string      `koanf:"keysets"`
	REST       *REST         `koanf:"rest"`
	Kubernetes *Kubernetes   `koanf:"kubernetes"`
	ZoneDelay  time.Duration `koanf:"zone_delay"`
	Resync     time.Duration `koanf:"resync"`
}

// REST is the REST API of a control plane.
type REST struct {
	Address        string            `koanf:"address"`
	TokenFile      string            `koanf:"token_file"`
	CAFile         string            `koanf:"ca_file"`
	ClientCertFile string            `koanf:"client_cert_file"`
	ClientKeyFile  string            `koanf:"client_key_file"`
	Headers        map[string]string `koanf:"headers"`
}

// Kubernetes is the cluster and the namespace that a control plane runs in.
type Kubernetes struct {
	Namespace  string `koanf:"namespace"`
	Kubeconfig string `koanf:"kubeconfig"`
	Context    string `koanf:"context"`
}

// What a control plane has that does not say.
const (
	defaultZoneDelay = 5 * time.Second
	defaultResync    = 30 * time.Second
)

// ReadKumaSync reads and checks the file at path.
func ReadKumaSync(path string) (KumaSync, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return KumaSync{}, fmt.Errorf("configuration: %w", err)
	}
	c, err := ParseKumaSync(data)
	if err != nil {
		return KumaSync{}, fmt.Errorf("configuration %s:\n%w", path, err)
	}
	return c, nil
}

// ParseKumaSync reads and checks a configuration in YAML.
func ParseKumaSync(data []byte) (KumaSync, error) {
	k := koanf.New("\x00") // names of headers may have dots
	if err := k.Load(rawbytes.Provider(data), yaml.Parser()); err != nil {
		return KumaSync{}, fmt.Errorf("not YAML: %w", err)
	}
	c := KumaSync{Log: Default().Log}
	err := k.UnmarshalWithConf("", &c, koanf.UnmarshalConf{DecoderConfig: &mapstructure.DecoderConfig{
		Result: &c, TagName: "koanf", ErrorUnused: true,
		MatchName:  func(key, field string) bool { return key == field },
		DecodeHook: mapstructure.ComposeDecodeHookFunc(unitlessDuration, mapstructure.StringToTimeDurationHookFunc()),
	}})
	for i := range c.ControlPlanes {
		c.ControlPlanes[i].setDefaults()
	}
	return c, errors.Join(oneDocument(data), plainly(err), c.check())
}

func (p *ControlPlane) setDefaults() {
	if p.ZoneDelay == 0 {
		p.ZoneDelay = defaultZoneDelay
	}
	if p.Resync == 0 {
		p.Resync = defaultResync
	}
}

func (c KumaSync) check() error {
	errs := []error{c.Log.check()}
	if len(c.ControlPlanes) == 0 {
		errs = append(errs, errors.New("control_planes: name at least one"))
	}
	names := map[string]bool{}
	for i, p := range c.ControlPlanes {
		for _, err := range p.faults() {
			errs = append(errs, fmt.Errorf("control_planes[%d].%w", i, err))
		}
		if names[p.Name] {
			errs = append(errs, fmt.Errorf("control_planes[%d].name: %q is there twice", i, p.Name))
		}
		names[p.Name] = true
	}
	return errors.Join(errs...)
}

// faults returns what is wrong with a control plane, each beginning with the field.
func (p ControlPlane) faults() (errs []error) {
	if !regexp.MustCompile(`^[a-z0-9][-._a-z0-9]{0,62}$`).MatchString(p.Name) {
		errs = append(errs, fmt.Errorf("name: %q is not 1 to 63 of a-z, 0-9, '.', '_' and '-'; it is the consumer's name in keysets", p.Name))
	}
	if slices.Contains(p.Keysets, "") {
		errs = append(errs, errors.New("keysets: a name is empty"))
	}
	if p.ZoneDelay < 0 || p.ZoneDelay > time.Hour {
		errs = append(errs, errors.New("zone_delay: must be from 1ns to 1h"))
	}
	if p.Resync < time.Second || p.Resync > time.Hour {
		errs = append(errs, errors.New("resync: must be from 1s to 1h"))
	}
	switch {
	case (p.REST == nil) == (p.Kubernetes == nil):
		errs = append(errs, errors.New("rest, kubernetes: set exactly one of them"))
	case p.REST != nil:
		errs = append(errs, p.REST.faults()...)
	case p.Kubernetes.Namespace == "":
		errs = append(errs, errors.New("kubernetes.namespace: is missing; Kong Mesh's is kong-mesh-system, Kuma's kuma-system"))
	}
	return errs
}

func (r REST) faults() (errs []error) {
	if r.Address == "" {
		errs = append(errs, errors.New("rest.address: is missing"))
	}
	if (r.ClientCertFile == "") != (r.ClientKeyFile == "") {
		errs = append(errs, errors.New("rest: client_cert_file and client_key_file go together"))
	}
	for name := range r.Headers {
		if http.CanonicalHeaderKey(name) == "Authorization" {
			errs = append(errs, errors.New("rest.headers: the credential goes into token_file, which may be readable by fewer"))
		}
	}
	return errs
}
