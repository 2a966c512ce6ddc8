package integration

import (
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/zonemint/zonemint/integration/controlplane"
)

// syncReport is what "kuma sync --once -o json" prints, as far as tests look at it.
type syncReport struct {
	DryRun        bool `json:"dry_run"`
	ControlPlanes []struct {
		ControlPlane string `json:"control_plane"`
		Items        []struct {
			Secret, Keyset, Outcome, Drift, Error string
			Kids                                  []string
			Entries, Added, Removed, Others       int
		}
	} `json:"control_planes"`
}

// outcome returns what is said of a secret or keyset.
func (r syncReport) outcome(what string) string {
	for _, i := range r.ControlPlanes[0].Items {
		if i.Secret == what || i.Keyset == what {
			return i.Outcome
		}
	}
	return "nothing"
}

// TestKumaSyncOnce runs the bridge once: dry, then in earnest, then with nothing to
// do, and against a control plane that takes nothing.
func TestKumaSyncOnce(t *testing.T) {
	s := newSynced(t)
	jti := s.revokeNew(t)
	list := "GlobalSecret " + zoneList
	once := func(args ...string) output {
		return zonemint(t, append([]string{"kuma", "sync", "--config", s.config, "-o", "json"}, args...)...)
	}
	dry := decode[syncReport](t, once("--dry-run").must(t))
	if w := s.plane.Writes(); len(w) > 0 || !dry.DryRun || dry.outcome(list) != "would write" || s.acknowledged(t) {
		t.Errorf("a dry run: wrote %v, said %+v", w, dry)
	}
	first := decode[syncReport](t, once("--once").must(t))
	if got := s.entries("", zoneList); len(got) != 1 || got[0] != jti || first.outcome(list) != "written" {
		t.Errorf("got %v, said %+v", got, first)
	}
	if !s.acknowledged(t) || first.outcome("zone") != "acknowledged" {
		t.Errorf("nothing is acknowledged, said %s", first.outcome("zone"))
	}
	writes := len(s.plane.Writes())
	again := decode[syncReport](t, once("--once").must(t))
	if len(s.plane.Writes()) != writes || again.outcome(list) != "unchanged" {
		t.Errorf("a second run: said %+v", again)
	}
	shown := zonemint(t, "kuma", "sync", "--config", s.config, "--once").must(t)
	if !regexp.MustCompile(`(?m)^global +`+list+` +unchanged +1 +0 +0 +0`).MatchString(shown) || strings.Contains(shown, planeToken) {
		t.Errorf("the table is\n%s", shown)
	}
	s.plane.ReadOnly(true)
	s.revokeNew(t)
	if o := once("--once"); o.code != 1 || !strings.Contains(o.stdout, "use kubernetes: instead of rest:") || !strings.Contains(o.stderr, "not up to date: global") {
		t.Errorf("exit code %d\n%s%s", o.code, o.stdout, o.stderr)
	}
	if o := zonemint(t, "kuma", "sync", "--config", s.config, "--once", "--addr", "http://127.0.0.1:1"); o.code != 4 {
		t.Errorf("without zonemint: exit code %d\n%s%s", o.code, o.stdout, o.stderr)
	}
	if err := os.WriteFile(s.config, []byte("control_planes: []\nx: y\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if o := once("--once"); o.code != 2 || !strings.Contains(o.stderr, "name at least one") || !strings.Contains(o.stderr, "there is no field x") {
		t.Errorf("with a bad configuration: exit code %d\n%s%s", o.code, o.stdout, o.stderr)
	}
}

// TestKumaSyncSaysHowItIs asks a bridge that runs for its health and its metrics.
func TestKumaSyncSaysHowItIs(t *testing.T) {
	s := newSynced(t)
	s.revokeNew(t)
	s.bridge = launchCommand(t, exec.Command(os.Getenv(binaryVariable), "kuma", "sync", "--config", s.config, "--metrics-listen", "127.0.0.1:0"))
	at := ""
	eventually(t, 20*time.Second, "it says where it listens", func() bool {
		m := regexp.MustCompile(`health and metrics are at http://(\S+)`).FindStringSubmatch(s.bridge.log.String())
		if m != nil {
			at = m[1]
		}
		return m != nil
	})
	eventually(t, 20*time.Second, "it is ready", func() bool { return get(t, at, "/healthz/ready").status == http.StatusOK })
	if status := get(t, at, "/healthz/live").status; status != http.StatusOK {
		t.Errorf("it does not live: %d", status)
	}
	text := string(get(t, at, "/metrics").body)
	for _, want := range []string{
		`zonemint_kuma_list_entries{control_plane="global",secret="GlobalSecret zone-token-revocations"} 1`,
		`zonemint_kuma_up_to_date{control_plane="global"} 1`, `zonemint_kuma_feed_age_seconds{keyset="zone"}`,
		`zonemint_kuma_writes_total{control_plane="global",kind="revocations",outcome="written"} 1`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the metrics lack %s\n%s", want, text)
		}
	}
	s.planeServer.Stop()
	s.plane.Drop(controlplane.Ref{Name: zoneList})
	eventually(t, 20*time.Second, "it is not ready without a control plane", func() bool {
		return get(t, at, "/healthz/ready").status == http.StatusServiceUnavailable
	})
	s.bridge.stop(t)
}
