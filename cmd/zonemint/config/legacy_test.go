package config_test

import (
	"strings"
	"testing"

	"github.com/zonemint/zonemint/cmd/zonemint/config"
)

// Old tokens are off unless the file turns them on, each kind by itself.
func TestLegacyTokensAreOff(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]config.LegacyTokens{
		"":                                     {},
		"legacy_tokens: {}":                    {},
		"legacy_tokens: {control_plane: true}": {ControlPlane: true},
		"legacy_tokens: {zone_ingress: true}":  {ZoneIngress: true},
		"legacy_tokens: {control_plane: true, zone_ingress: true}": {ControlPlane: true, ZoneIngress: true},
	} {
		c, err := config.Parse([]byte(least + text + "\n"))
		if err != nil || c.Legacy != want {
			t.Errorf("%q: %+v, %v", text, c.Legacy, err)
		}
	}
	for _, bad := range []string{"legacy_tokens: true", "legacy_tokens: {control-plane: true}", "legacy_tokens: {control_plane: 'on'}"} {
		if _, err := config.Parse([]byte(least + bad + "\n")); err == nil || !strings.Contains(err.Error(), "legacy_tokens") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}
