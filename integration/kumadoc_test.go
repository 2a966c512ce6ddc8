package integration

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/zonemint/zonemint/integration/controlplane"
	pb "github.com/zonemint/zonemint/proto/zonemint/v1"
	"github.com/zonemint/zonemint/token"
)

// meshPage is docs/kuma.md on its way: zonemint, a global control plane with a past,
// two clusters, and what stands in for the programs that come from elsewhere.
type meshPage struct {
	*walkthrough

	server *server
	client client
	own    kumasOwn
	plane  *controlplane.ControlPlane
	global *kubeCluster // where the global control plane runs
	west   *kubeCluster // where a zone is to run
}

func newMeshPage(t *testing.T) *meshPage {
	t.Helper()
	in := installAdmin(t, newSQLite(t, t.TempDir()), settings{
		keysets:  []keyset{{"zone", "zone", "RS256"}, {"dataplane/default", "dataplane", "RS256"}, {"user", "user", "RS256"}},
		leaseTTL: 3 * shortLease, more: "jwks_max_age: 1s\njwks_stale_if_error: 0s\nclock_skew: 100ms\n",
	})
	m := &meshPage{
		server: in.start(t), own: newKumasOwn(t), plane: controlplane.New(planeToken, "default"),
		global: newKubeCluster("of-global", "kong-mesh-system"), west: newKubeCluster("of-west"),
	}
	m.client = m.server.overConnect(t, in.admin)
	m.plane.Set(controlplane.Ref{Name: kumasKeyName}, m.own.pem, nil)
	m.plane.Set(controlplane.Ref{Name: zoneList}, kumasRevoked, nil)
	plane, err := controlplane.Serve(globalPlane{m.plane, planeToken})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(plane.Stop)
	m.walkthrough = newWalkthrough(t,
		"https://zonemint.example.com", "http://"+m.server.public, "https://global.example.com:5682", plane.URL())
	m.equip(t, in)
	return m
}

// equip puts there what the page says has to be there, and the programs.
func (m *meshPage) equip(t *testing.T, in *installation) {
	t.Helper()
	m.file(t, "admin.token", in.admin+"\n")
	m.file(t, "kuma-admin.token", planeToken+"\n")
	m.file(t, "kubeconfig", kubeconfig(t, map[string]*kubeCluster{"global": m.global, "west": m.west}))
	m.tool(t, "zonemint", os.Getenv(binaryVariable))
	m.standIns(t)
}

// TestKumaPage runs every step of docs/kuma.md and looks at what comes of it. The
// programs that come from elsewhere are those of integration/meshtools.
func TestKumaPage(t *testing.T) {
	page, err := os.ReadFile("../docs/kuma.md")
	if err != nil {
		t.Fatal(err)
	}
	m := newMeshPage(t)
	if steps := m.run(t, string(page)); steps < 15 {
		t.Errorf("the page has %d steps, so this looked at the wrong one", steps)
	}
	m.wantRotated(t)
	m.wantSecrets(t)
	m.wantStarted(t)
	m.wantTokens(t)
	m.wantOwnToken(t)
	for what, violations := range map[string][]string{
		"the control plane": m.plane.Violations(), "the global cluster": m.global.Violations(), "the zone's cluster": m.west.Violations(),
	} {
		for _, v := range violations {
			t.Errorf("%s objects: %s", what, v)
		}
	}
}

// keys returns the keys of a keyset that verifiers have to have.
func (m *meshPage) keys(t *testing.T, keyset string) []*pb.SigningKey {
	t.Helper()
	resp, err := m.client.keys.ListSigningKeys(t.Context(), &pb.ListSigningKeysRequest{Keyset: keyset})
	if err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(resp.GetSigningKeys(), func(k *pb.SigningKey) bool {
		return !slices.Contains([]string{"published", "active", "retiring", "verify-only"}, k.GetState())
	})
}

// wantRotated waits until the rotation that the page asks for is through. A bridge that
// runs all the time would then write the next successor; the page's has ended, so it may
// have to look once more.
func (m *meshPage) wantRotated(t *testing.T) {
	t.Helper()
	took := eventually(t, time.Minute, "the second key of zone signs, and has a successor", func() bool {
		state := map[string]int{}
		for _, k := range m.keys(t, "zone") {
			if !k.GetImported() {
				state[k.GetState()]++
			}
		}
		return state["active"] == 1 && state["retiring"] == 1 && state["published"] == 1
	})
	t.Logf("the rotation was through %s after the last step", took.Round(time.Millisecond))
	if len(m.lacking(t)) > 0 {
		m.step(t, "once more", "zonemint kuma sync --config kuma-sync.yaml --once")
	}
}

// lacking returns the keys of zone that the control plane does not have as it should.
func (m *meshPage) lacking(t *testing.T) (out []string) {
	t.Helper()
	for _, k := range m.keys(t, "zone") {
		s, there := m.plane.Secret(controlplane.Ref{Name: publicKeyName + k.GetKid()})
		if k.GetImported() && there || !k.GetImported() && s.Data != k.GetPublicKey() {
			out = append(out, k.GetKid())
		}
	}
	return out
}

// wantSecrets wants the global control plane to have zonemint's keys and all
// revocations, and its own key to be gone and not to come back.
func (m *meshPage) wantSecrets(t *testing.T) {
	t.Helper()
	if kids := m.lacking(t); len(kids) > 0 {
		t.Errorf("the control plane does not have these keys as it should: %s", kids)
	}
	if _, there := m.plane.Secret(controlplane.Ref{Name: kumasKeyName}); there {
		t.Error("Kuma's own key is still there")
	}
	list, _ := m.plane.Secret(controlplane.Ref{Name: zoneList})
	lost := wantGood(t, m.inSecrets(), m.read(t, "west-ingress.token"), token.RequireZone("west"))
	want := []string{kumasRevoked, lost.ID}
	if got := strings.Split(list.Data, ","); len(got) != 2 || !slices.Contains(got, want[0]) || !slices.Contains(got, want[1]) {
		t.Errorf("the list has %q, want %q", got, want)
	}
	if _, there := m.global.Secret("kong-mesh-system", zoneList); !there {
		t.Error("the cluster of the global control plane has no list")
	}
}

// wantStarted wants all four control planes to have started, the global ones so that
// zones have to authenticate, and zones with tokens that these have accepted. Then it
// starts two with what the page leaves, which do not issue tokens any more.
func (m *meshPage) wantStarted(t *testing.T) {
	t.Helper()
	type started struct {
		By, Mode, Auth, Zone, JTI string
		Kids                      map[string][]string
		Issuers                   map[string]bool
	}
	m.step(t, "restart", `
KMESH_MODE=global KMESH_MULTIZONE_GLOBAL_KDS_AUTH_TYPE=cpToken kuma-cp run --config-file global-keys.yaml
KMESH_MODE=zone KMESH_MULTIZONE_ZONE_NAME=west KMESH_MULTIZONE_ZONE_GLOBAL_ADDRESS=grpcs://global.example.com:5685 \
  KMESH_MULTIZONE_ZONE_KDS_AUTH_CP_TOKEN_PATH=$PWD/token kuma-cp run --config-file zone-keys.yaml`)
	text, err := os.ReadFile(filepath.Join(m.state, "started.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	var all []started
	for line := range strings.Lines(string(text)) {
		var s started
		if err := json.Unmarshal([]byte(line), &s); err != nil {
			t.Fatal(err)
		}
		all = append(all, s)
	}
	if len(all) != 6 {
		t.Fatalf("%d control planes were started: %+v", len(all), all)
	}
	for i, want := range []started{
		{By: "kuma-cp", Mode: "global", Auth: "cpToken"}, {By: "helm", Mode: "global", Auth: "cpToken"},
		{By: "kuma-cp", Mode: "zone", Zone: "west"}, {By: "helm", Mode: "zone", Zone: "west"},
		{By: "kuma-cp", Mode: "global", Auth: "cpToken"}, {By: "kuma-cp", Mode: "zone", Zone: "west"},
	} {
		s := all[i]
		if s.By != want.By || s.Mode != want.Mode || s.Auth != want.Auth || s.Zone != want.Zone || (s.JTI != "") != (s.Mode == "zone") {
			t.Errorf("control plane %d was started as %+v, want %+v", i, s, want)
		}
		if s.Mode == "global" && (len(s.Kids["zone"]) != 2 || len(s.Kids["user"]) != 2) || s.By == "kuma-cp" && s.Mode == "zone" && len(s.Kids["dataplane"]) != 2 {
			t.Errorf("control plane %d has not got the key that signs and its successor: %v", i, s.Kids)
		}
		for kind, issues := range s.Issuers {
			if issues != (i < 4) {
				t.Errorf("control plane %d issues %s tokens: %v", i, kind, issues)
			}
		}
	}
}

// inSecrets returns the keys that the control plane was given as secrets, and still
// has.
func (m *meshPage) inSecrets() (out []givenKey) {
	for _, w := range m.plane.Writes() {
		kid, ok := strings.CutPrefix(w.Ref.Name, publicKeyName)
		s, there := m.plane.Secret(w.Ref)
		k := givenKey{KID: kid, Key: s.Data}
		if ok && there && !slices.Contains(out, k) {
			out = append(out, k)
		}
	}
	return out
}

// wantTokens verifies the tokens that the page leaves, each with nothing but what the
// control plane was given that would.
func (m *meshPage) wantTokens(t *testing.T) {
	t.Helper()
	var global, zone givenConfig
	for name, into := range map[string]*givenConfig{"global-keys.yaml": &global, "zone-keys.yaml": &zone} {
		if err := yaml.Unmarshal([]byte(m.read(t, name)), into); err != nil {
			t.Fatal(err)
		}
	}
	west, proxies := token.RequireZone("west"), token.RequireScopes(token.ScopeIngress, token.ScopeEgress)
	wantGood(t, m.inSecrets(), m.read(t, "west-proxies.token"), west, proxies)
	wantGood(t, global.DPServer.Authn.ZoneProxy.ZoneToken.Validator.PublicKeys, m.read(t, "token"), west, token.RequireScopes(token.ScopeCP))
	web := wantGood[token.DataplaneClaims](t, zone.DPServer.Authn.DPProxy.DPToken.Validator.PublicKeys, m.read(t, "web-1.token"))
	if web.Name != "web-1" || web.Mesh != "default" {
		t.Errorf("the token of a dataplane is for %s in %s", web.Name, web.Mesh)
	}
}

// givenConfig is the configuration of a control plane, as far as verifiers need it.
type givenConfig struct {
	DPServer struct {
		Authn struct {
			ZoneProxy struct {
				ZoneToken givenTokens `yaml:"zoneToken"`
			} `yaml:"zoneProxy"`
			DPProxy struct {
				DPToken givenTokens `yaml:"dpToken"`
			} `yaml:"dpProxy"`
		}
	} `yaml:"dpServer"`
}

type givenTokens struct {
	Validator struct {
		PublicKeys []givenKey `yaml:"publicKeys"`
	}
}

// givenKey is a public key that a control plane was given.
type givenKey struct{ KID, Key string }

// wantGood wants a token to be good for whoever has these keys and nothing else, and
// returns what it says.
func wantGood[C token.Claims](t *testing.T, given []givenKey, text string, requirements ...token.Requirement[C]) C {
	t.Helper()
	keys := make([]token.Key, len(given))
	for i, g := range given {
		var err error
		if keys[i], err = token.ParseKey(g.KID, "RS256", []byte(g.Key)); err != nil {
			t.Fatal(err)
		}
	}
	set, err := token.NewKeySet(keys...)
	if err != nil {
		t.Fatal(err)
	}
	v, err := token.NewVerifier[C](set, token.Options{})
	if err != nil {
		t.Fatal(err)
	}
	good, err := v.Verify(t.Context(), strings.TrimSpace(text), requirements...)
	if err != nil {
		t.Error(err)
	}
	return good.Claims
}

// wantOwnToken wants a token of Kuma's own key, from before all this, to be good for
// whoever verifies with the keyset's JWK set.
func (m *meshPage) wantOwnToken(t *testing.T) {
	t.Helper()
	v, err := token.NewVerifier[token.ZoneClaims](m.server.keys(t, "zone"), token.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := v.Verify(t.Context(), m.own.token, token.RequireZone("east")); err != nil {
		t.Error("a token of Kuma's own key:", err)
	}
}
