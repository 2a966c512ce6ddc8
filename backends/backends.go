// Package backends knows every place where private keys can live, by name.
package backends

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/go-viper/mapstructure/v2"
	"github.com/tink-crypto/tink-go/v2/tink"

	"github.com/zonemint/zonemint/backends/awskms"
	"github.com/zonemint/zonemint/backends/gcpkms"
	"github.com/zonemint/zonemint/backends/local"
	"github.com/zonemint/zonemint/backends/pkcs11"
	"github.com/zonemint/zonemint/backends/vault"
	"github.com/zonemint/zonemint/signer"
)

// Config holds the settings of each backend that is configured, by its name.
type Config map[string]Settings

// Settings are those of one backend, as a configuration file has them. "type" says
// which kind of backend it is, the one of its own name if it is not there: so
// there can be several of a kind. The kind says which other settings there are.
type Settings map[string]any

// kind returns what kind of backend the name stands for.
func (s Settings) kind(name string) string {
	if t, ok := s["type"].(string); ok {
		return t
	}
	return name
}

// Deps is what backends share and no configuration file can hold.
type Deps struct {
	AEAD   tink.AEAD    // of the instance key; nil if there is none
	Logger *slog.Logger // nil means slog.Default()
	// PKCS11 are the modules of this process, of which each can be loaded once. Nil
	// is for a process that opens one backend.
	PKCS11 *pkcs11.Modules
	// MayBeAway is for a process that goes on trying: a backend that does not answer is
	// opened all the same, and is down until it does. Others get an error.
	MayBeAway bool
	// TryOut is for a process whose keys are of use to nobody: they may be destroyed
	// right after they were used.
	TryOut bool
}

// opener makes a backend from its settings.
type opener func(context.Context, Settings, Deps) (signer.Backend, error)

// openers is the table of all backends. A new one gets its line here.
func openers() map[string]opener {
	return map[string]opener{
		"awskms": by(awskms.New, func(o *awskms.Options, d Deps) {
			if o.Logger = d.Logger; d.TryOut {
				o.MinIdle = new(time.Duration)
			}
		}),
		"gcpkms": by(gcpkms.New, func(o *gcpkms.Options, d Deps) { o.Logger = d.Logger }),
		"local":  openLocal,
		"pkcs11": openPKCS11,
		"vault":  by(vault.New, func(o *vault.Options, d Deps) { o.Logger = d.Logger }),
	}
}

// Names returns the names of all backends, sorted.
func Names() []string { return slices.Sorted(maps.Keys(openers())) }

// Open connects to the backend of that name. One that has no settings in cfg
// is opened with its defaults. The caller closes it.
func Open(ctx context.Context, name string, cfg Config, deps Deps) (signer.Backend, error) {
	open, ok := openers()[cfg[name].kind(name)]
	if !ok {
		return nil, unknown(cfg[name].kind(name))
	}
	b, err := open(ctx, cfg[name], deps)
	if err != nil {
		return nil, fmt.Errorf("backend %s: %w", name, err)
	}
	return b, nil
}

// Check refuses a configuration that names a backend which does not exist.
func (c Config) Check() error {
	for _, name := range slices.Sorted(maps.Keys(c)) {
		if _, ok := openers()[c[name].kind(name)]; !ok {
			return unknown(c[name].kind(name))
		}
	}
	return nil
}

func unknown(name string) error {
	return fmt.Errorf("there is no backend %q, only: %s", name, strings.Join(Names(), ", "))
}

// decode fills into, a pointer to a struct whose fields carry the names of the
// settings in "setting" tags. It is strict: unknown names, names in another
// case and values of another type are errors, which name the setting and not
// its value.
func (s Settings) decode(into any) error {
	dec, err := mapstructure.NewDecoder(&mapstructure.DecoderConfig{
		Result:      into,
		TagName:     "setting",
		ErrorUnused: true,
		MatchName:   func(key, field string) bool { return key == field },
		DecodeHook:  mapstructure.ComposeDecodeHookFunc(mapstructure.StringToTimeDurationHookFunc(), mapstructure.TextUnmarshallerHookFunc()),
	})
	if err != nil {
		return err
	}
	rest := maps.Clone(s)
	if _, ok := rest["type"].(string); ok {
		delete(rest, "type") // it chose the backend; of another type it is a fault
	}
	return dec.Decode(map[string]any(rest))
}

func openLocal(_ context.Context, settings Settings, deps Deps) (signer.Backend, error) {
	var s struct {
		Insecure bool `setting:"insecure"`
	}
	if err := settings.decode(&s); err != nil {
		return nil, err
	}
	return local.New(deps.AEAD, local.Options{Insecure: s.Insecure, Logger: deps.Logger}), nil
}

func openPKCS11(ctx context.Context, settings Settings, deps Deps) (signer.Backend, error) {
	var s struct {
		Module      string        `setting:"module"`
		TokenLabel  string        `setting:"token_label"`
		TokenSerial string        `setting:"token_serial"`
		PINFile     string        `setting:"pin_file"`
		PINEnv      string        `setting:"pin_env"`
		PINCommand  []string      `setting:"pin_command"`
		MaxSessions int           `setting:"max_sessions"`
		PoolWait    time.Duration `setting:"pool_wait"`
		CallTimeout time.Duration `setting:"call_timeout"`
		Algorithms  []string      `setting:"algorithms"`
	}
	if err := settings.decode(&s); err != nil {
		return nil, err
	}
	algorithms, err := parseAlgorithms(s.Algorithms)
	if err != nil {
		return nil, err
	}
	modules := deps.PKCS11
	if modules == nil {
		modules = &pkcs11.Modules{}
	}
	b, err := modules.Open(ctx, pkcs11.Options{
		Module: s.Module, TokenLabel: s.TokenLabel, TokenSerial: s.TokenSerial,
		PINFile: s.PINFile, PINEnv: s.PINEnv, PINCommand: s.PINCommand, MaxSessions: s.MaxSessions,
		PoolWait: s.PoolWait, CallTimeout: s.CallTimeout, Algorithms: algorithms, Logger: deps.Logger,
		MayBeAway: deps.MayBeAway,
	})
	if err != nil {
		return nil, err
	}
	return b, nil
}

func parseAlgorithms(names []string) (list []signer.Algorithm, err error) {
	for _, name := range names {
		alg, err := signer.Parse(name)
		if err != nil {
			return nil, fmt.Errorf("algorithms: %w", err)
		}
		list = append(list, alg)
	}
	return list, nil
}

// by returns an opener for a backend whose options carry the names of the settings.
// share adds what no configuration file can hold.
func by[O any, B signer.Backend](open func(context.Context, O) (B, error), share func(*O, Deps)) opener {
	return func(ctx context.Context, settings Settings, deps Deps) (signer.Backend, error) {
		var o O
		if err := settings.decode(&o); err != nil {
			return nil, err
		}
		share(&o, deps)
		b, err := open(ctx, o)
		if err != nil {
			return nil, err
		}
		return b, nil
	}
}
