package config_test

import (
	"strings"
	"testing"

	"github.com/zonemint/zonemint/cmd/zonemint/config"
)

// A base path that the router cannot have, or that is another's, is refused before
// the server starts.
func TestKumaBasePath(t *testing.T) {
	t.Parallel()
	for _, good := range []string{"", "/kuma", "/mesh/kuma-2.x", "/keysets", "/...", "/~a/_b"} {
		c, err := config.Parse([]byte(least + "kuma: {base_path: '" + good + "'}\n"))
		if err != nil || c.Kuma.BasePath != good {
			t.Errorf("%q: %q, %v", good, c.Kuma.BasePath, err)
		}
	}
	for _, bad := range []string{
		"/", "kuma", "/kuma/", "//kuma", "/a//b", "/.", "/..", "/a/../b", "/a/.", "/{id}", "/a b", "/a?b", "/%2e", "/.well-known", "/.well-known/openid-configuration",
	} {
		if _, err := config.Parse([]byte(least + "kuma: {base_path: '" + bad + "'}\n")); err == nil || !strings.Contains(err.Error(), "kuma.base_path") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}
