package integration

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/zonemint/zonemint/integration/controlplane"
)

// toolbox is a folder with everything that stand-ins can be given, good and bad.
type toolbox struct {
	*walkthrough

	key   *rsa.PrivateKey
	plane *controlplane.ControlPlane
	url   string // of the control plane
	other string // of one of another product
}

func newToolbox(t *testing.T) *toolbox {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	b := &toolbox{walkthrough: newWalkthrough(t), key: key, plane: controlplane.New(planeToken)}
	global := httptest.NewServer(globalPlane{b.plane, planeToken})
	t.Cleanup(global.Close)
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `{"product": "Kong Mesh", "version": "2.14.3"}`)
	}))
	t.Cleanup(other.Close)
	b.url, b.other = global.URL, other.URL
	b.standIns(t)
	b.file(t, "kubeconfig", kubeconfig(t, map[string]*kubeCluster{"west": newKubeCluster("of-west", "here")}))
	b.configurations(t)
	b.tokens(t)
	return b
}

// place returns a configuration with one key.
func place(path, kid, pem string) string {
	depth := 0
	var b strings.Builder
	for name := range strings.SplitSeq(path, ".") {
		fmt.Fprintf(&b, "%s%s:\n", strings.Repeat("  ", depth), name)
		depth++
	}
	in := strings.Repeat("  ", depth)
	fmt.Fprintf(&b, "%svalidator:\n%s  publicKeys:\n%s  - kid: %q\n%s    key: %q\n", in, in, in, kid, in, pem)
	return b.String()
}

// configurations writes one that is good, and what control planes do not start with.
func (b *toolbox) configurations(t *testing.T) {
	t.Helper()
	const zone, user = "dpServer.authn.zoneProxy.zoneToken", "apiServer.authn.tokens"
	public := publicPEM(t, b.key.Public())
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	private := string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(b.key)}))
	for name, text := range map[string]string{
		"good.yaml": place(zone, "zone-1-a", public), "user.yaml": place(user, "zone-1-a", public),
		"number.yaml": place(zone, "1", public), "ec.yaml": place(zone, "zone-1-a", publicPEM(t, ec.Public())),
		"private.yaml": place(zone, "zone-1-a", private), "junk.yaml": place(zone, "zone-1-a", "junk"),
		"unknown.yaml": place("dpServer.authn.zoneProxy.zoneTokens", "zone-1-a", public),
		"both.yaml":    place(zone, "zone-1-a", public) + place(user, "user-1-a", public),
		"opaque.yaml":  "apiVersion: v1\nkind: Secret\nmetadata: {name: a, namespace: here}\ntype: x\ndatum: {}\n",
		"bytes.yaml":   "apiVersion: v1\nkind: Secret\nmetadata: {name: a, namespace: here}\ntype: x\ndata: {value: '%'}\n",
		"there.yaml":   "apiVersion: v1\nkind: Secret\nmetadata: {name: a, namespace: there}\ntype: x\n",
		"mesh.yaml":    "type: Mesh\nname: default\n", "values.yaml": "kuma: {controlPlane: {mode: zone, zones: west}}\n",
		"secret.yaml": "kuma: {controlPlane: {mode: zone, zone: west, kdsGlobalAddress: 'grpcs://a:1', secrets: [{Env: A, Secret: b, Key: c}]}}\n",
	} {
		b.file(t, name, text)
	}
}

func publicPEM(t *testing.T, key any) string {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

// tokens writes one that is good, and what a global control plane refuses.
func (b *toolbox) tokens(t *testing.T) {
	t.Helper()
	for name, change := range map[string]func(tk *jwt.Token, c jwt.MapClaims){
		"good":    func(*jwt.Token, jwt.MapClaims) {},
		"ingress": func(_ *jwt.Token, c jwt.MapClaims) { c["Scope"] = []string{"ingress"} },
		"east":    func(_ *jwt.Token, c jwt.MapClaims) { c["Zone"] = "east" },
		"old":     func(_ *jwt.Token, c jwt.MapClaims) { c["exp"] = time.Now().Add(-time.Minute).Unix() },
		"forever": func(_ *jwt.Token, c jwt.MapClaims) { delete(c, "exp") },
		"noid":    func(_ *jwt.Token, c jwt.MapClaims) { delete(c, "jti") },
		"name":    func(_ *jwt.Token, c jwt.MapClaims) { c["Name"] = "mesh-system:admin" },
		"kid":     func(tk *jwt.Token, _ jwt.MapClaims) { tk.Header["kid"] = "1" },
		"alg":     func(tk *jwt.Token, _ jwt.MapClaims) { tk.Method, tk.Header["alg"] = jwt.SigningMethodRS384, "RS384" },
	} {
		claims := jwt.MapClaims{"Zone": "west", "Scope": []string{"cp"}, "jti": "a", "exp": time.Now().Add(time.Hour).Unix()}
		tk := jwt.NewWithClaims(jwt.SigningMethodRS256, claims)
		tk.Header["kid"] = "zone-1-a"
		change(tk, claims)
		text, err := tk.SignedString(b.key)
		if err != nil {
			t.Fatal(err)
		}
		b.file(t, name+".token", text)
	}
	b.file(t, "line.token", b.read(t, "good.token")+"\n")
	b.file(t, "signature.token", b.read(t, "good.token")+"AA")
}

// TestMeshToolsAreStrict gives the stand-ins what the real programs refuse. A page
// that has a mistake would pass if they did not.
func TestMeshToolsAreStrict(t *testing.T) {
	b := newToolbox(t)
	const (
		global = "KMESH_MODE=global KMESH_MULTIZONE_GLOBAL_KDS_AUTH_TYPE=cpToken "
		zone   = "KMESH_MODE=zone KMESH_MULTIZONE_ZONE_NAME=west KMESH_MULTIZONE_ZONE_GLOBAL_ADDRESS=grpcs://a:1 "
		helm   = "helm upgrade --install --kube-context west a kong-mesh/kong-mesh -n "
	)
	with := func(token string) string {
		return zone + "KMESH_MULTIZONE_ZONE_KDS_AUTH_CP_TOKEN_PATH=$PWD/" + token + ".token kuma-cp run -c user.yaml"
	}
	add := "kumactl config control-planes add --auth-type=tokens --auth-conf token=" + planeToken + " --address "
	for _, c := range []struct{ script, refusal string }{ // in this order; "" is none
		{with("good"), "no global control plane was started"},
		{global + "kuma-cp run -c number.yaml", "control plane's own key"},
		{global + "kuma-cp run -c ec.yaml", "no RSA key"},
		{global + "kuma-cp run -c private.yaml", "RSA PRIVATE KEY"},
		{global + "kuma-cp run -c junk.yaml", "not one PEM block"},
		{global + "kuma-cp run -c unknown.yaml", "zoneTokens not found"},
		{global + "kuma-cp run -c both.yaml", "for zone and for user tokens|for user and for zone tokens"},
		{global + "KMESH_MULTIZONE_AUTH=a kuma-cp run -c good.yaml", "no setting KMESH_MULTIZONE_AUTH"},
		{"KMESH_MODE=global KMESH_MULTIZONE_GLOBAL_KDS_AUTH_TYPE=token kuma-cp run -c good.yaml", "means nothing"},
		{"kuma-cp run -c good.yaml", "KMESH_MODE is not set"},
		{"KMESH_MODE=global kuma-cp run -c good.yaml", ""},
		{with("good"), "not told to look at tokens"},
		{global + "kuma-cp run -c user.yaml", ""},
		{with("good"), "no signing key with KID zone-1-a"},
		{global + "kuma-cp run -c good.yaml", ""},
		{with("good"), ""},
		{with("ingress"), `scopes \["ingress"\]`}, {with("east"), `for zone "east"`}, {with("old"), "expired"},
		{with("forever"), "exp claim is required"}, {with("noid"), "has no ID"}, {with("name"), `claim "Name"`},
		{with("kid"), "no signing key with KID 1"}, {with("alg"), "signing method RS384 is invalid"},
		{with("line"), "white space"}, {with("signature"), "signature is invalid|illegal base64"},
		{zone + "kuma-cp run -c good.yaml", "either as text or as a file"},
		{strings.Replace(with("good"), "grpcs", "grpc", 1), "means nothing"},

		{"kubectl --context east create namespace a", `context "east" does not exist`},
		{"kubectl --context west create namespace a_b", "lowercase"},
		{"kubectl --context west create namespace here", "AlreadyExists"},
		{"kubectl --context west create secret generic a -n there --from-file=good.token", `namespaces "there" not found`},
		{"kubectl --context west apply -f there.yaml", `namespaces "there" not found`},
		{"kubectl --context west apply -f opaque.yaml", `unknown field "datum"`},
		{"kubectl --context west apply -f bytes.yaml", "illegal base64"},
		{"kubectl --context west apply -f mesh.yaml", `unknown field "name"|is not a Secret`},
		{"kubectl --context west apply -f - </dev/null", "no objects"},
		{helm + "there -f values.yaml", `namespaces "there" not found`},
		{helm + "here -f values.yaml", "zones not found"},
		{helm + "here -f secret.yaml", `Secret "b" with the key "c" is not there`},

		{add + b.other + " --name other", "this CLI is for Kuma"},
		{add + b.url + " --name global", ""},
		{add + b.url + " --name global", "already exists"},
		{"kumactl config control-planes switch --name other", "no Control Plane"},
		{"kumactl apply -f mesh.yaml", "is no secret"},
		{"kumactl generate zone-token --zone west --scope cp --valid-for 1h", `invalid scope "cp"`},
		{"kumactl generate zone-token --zone west", "valid-for"},
		{"kumactl delete global-secret zone-token-signing-key-1", "Not found"},
		{"kumactl get meshes", "unknown command"},

		{`echo "$(openssl version)"`, "nothing stands in for openssl"},
		{"export HERE=1", ""}, {`test "$HERE" = 1`, ""}, {"echo $THERE", "unbound variable"}, {"false | true", "exit status 1"},
	} {
		out, err := b.try(t, c.script)
		if err != nil {
			out += err.Error()
		}
		if (err != nil) != (c.refusal != "") || !matches(c.refusal, out) {
			t.Errorf("%s\ngot %s, want %q", c.script, out, c.refusal)
		}
	}
}
