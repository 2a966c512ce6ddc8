package legacy_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"go/parser"
	gotoken "go/token"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/golang-jwt/jwt/v5"

	"github.com/zonemint/zonemint/instancekey"
	"github.com/zonemint/zonemint/service/legacy"
)

func golden(t testing.TB, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(text))
}

func secret(t testing.TB) []byte {
	t.Helper()
	der, err := base64.StdEncoding.DecodeString(strings.ReplaceAll(golden(t, "secret.base64"), "\n", ""))
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func key(t testing.TB) legacy.MAC {
	t.Helper()
	k, err := legacy.NewMAC(secret(t))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// The golden tokens were made by others; see testdata.
func TestTokensAreThoseOfControlPlanes(t *testing.T) {
	for kind, token := range map[legacy.Kind]legacy.Token{
		legacy.ControlPlane: {Zone: "west", Serial: 1}, legacy.ZoneIngress: {Zone: "west"},
	} {
		want := golden(t, string(kind)+".token")
		if got, err := token.Encode(kind, key(t)); err != nil || got != want {
			t.Errorf("%s: %s (%v), want %s", kind, got, err, want)
		}
		u, err := legacy.Parse(kind, want)
		if err != nil || u.Serial() != token.Serial {
			t.Fatalf("%s: serial %d, %v", kind, u.Serial(), err)
		}
		if got, err := u.Verify(key(t)); err != nil || got != token {
			t.Errorf("%s says %+v (%v), want %+v", kind, got, err, token)
		}
	}
}

// claims are those of Kong Mesh, as its source and golang-jwt write them.
type claims struct {
	Zone              string
	TokenSerialNumber int
	jwt.RegisteredClaims
}

func TestTokensAreThoseOfTheLibraryOfControlPlanes(t *testing.T) {
	theirs, err := jwt.NewWithClaims(jwt.SigningMethodHS256, claims{Zone: "a<b>&ü", TokenSerialNumber: 7}).SignedString(secret(t))
	if err != nil {
		t.Fatal(err)
	}
	ours, err := legacy.Token{Zone: "a<b>&ü", Serial: 7}.Encode(legacy.ControlPlane, key(t))
	if err != nil || ours != theirs {
		t.Errorf("ours is %s (%v), theirs %s", ours, err, theirs)
	}
	var read claims
	if _, err := jwt.ParseWithClaims(ours, &read, func(*jwt.Token) (any, error) { return secret(t), nil }); err != nil || read.Zone != "a<b>&ü" {
		t.Errorf("they read %+v, %v", read, err)
	}
}

// sign makes a token of any header and payload with the golden secret.
func sign(t testing.TB, header, payload string) string {
	t.Helper()
	input := base64.RawURLEncoding.EncodeToString([]byte(header)) + "." + base64.RawURLEncoding.EncodeToString([]byte(payload))
	return input + "." + base64.RawURLEncoding.EncodeToString(key(t).Sum([]byte(input)))
}

const (
	header       = `{"alg":"HS256","typ":"JWT"}`
	controlPlane = `{"Zone":"west","TokenSerialNumber":1}`
	zoneIngress  = `{"Zone":"west"}`
)

// Every one of these has a code that is right.
func TestOnlyTheExactFormIsRead(t *testing.T) {
	for payload, kind := range map[string]legacy.Kind{controlPlane: legacy.ControlPlane, zoneIngress: legacy.ZoneIngress} {
		if _, err := legacy.Parse(kind, sign(t, header, payload)); err != nil {
			t.Fatalf("%s: %v", payload, err)
		}
		for _, h := range []string{
			`{"typ":"JWT","alg":"HS256"}`, `{"alg":"HS256"}`, `{"alg":"HS256","typ":"JWT","kid":"1"}`, `{"alg":"HS256","kid":"1","typ":"JWT"}`,
			`{"alg":"HS384","typ":"JWT"}`, `{"alg":"HS512","typ":"JWT"}`, `{"alg":"none","typ":"JWT"}`, `{"alg":"RS256","typ":"JWT"}`,
			`{"alg":"hs256","typ":"JWT"}`, `{"alg":"HS256","typ":"jwt"}`, `{"Alg":"HS256","typ":"JWT"}`, `{"alg":"HS256","alg":"HS256","typ":"JWT"}`,
			`{"alg": "HS256","typ":"JWT"}`, header + " ", header + "\n", `{"alg":"\u0048S256","typ":"JWT"}`, ``, `null`, `[]`,
		} {
			if _, err := legacy.Parse(kind, sign(t, h, payload)); !errors.Is(err, legacy.ErrMalformed) {
				t.Errorf("%s: %s passes as %s: %v", h, payload, kind, err)
			}
		}
	}
	for _, payload := range []string{
		``, `null`, `[]`, `"west"`, `{}`, `{"Zone":""}`, `{"Zone":null}`, `{"Zone":["west"]}`, `{"Zone":1}`, `{"zone":"west"}`, `{"ZONE":"west"}`,
		`{"Zone":"west"} `, ` {"Zone":"west"}`, `{"Zone": "west"}`, `{"Zone":"west"}{}`, `{"Zone":"west","Zone":"west"}`,
		`{"Zone":"east","Zone":"west"}`, `{"Zone":"\u0077est"}`, "{\"Zone\":\"we\xffst\"}", `{"Zone":"west","exp":4102444800}`,
		`{"Zone":"west","Scope":["ingress"]}`, `{"Zone":"west","TokenSerialNumber":0}`, `{"Zone":"west","TokenSerialNumber":null}`,
		`{"Zone":"west","TokenSerialNumber":-1}`, `{"Zone":"west","TokenSerialNumber":1.0}`, `{"Zone":"west","TokenSerialNumber":1e0}`,
		`{"Zone":"west","TokenSerialNumber":"1"}`, `{"Zone":"west","tokenserialnumber":1}`, `{"TokenSerialNumber":1,"Zone":"west"}`,
		`{"Zone":"west","TokenSerialNumber":1,"TokenSerialNumber":2}`, `{"Zone":"west","TokenSerialNumber":1,"jti":"x"}`, `{"TokenSerialNumber":1}`,
		`{"Zone":"west","TokenSerialNumber":9223372036854775808}`, `{"Zone":"` + strings.Repeat("w", legacy.MaxZoneLength+1) + `"}`,
		`{"Name":"web","Mesh":"default"}`, `{"Name":"mesh-system:admin","Groups":["mesh-system:admin"]}`,
	} {
		for _, kind := range legacy.Kinds() {
			if _, err := legacy.Parse(kind, sign(t, header, payload)); !errors.Is(err, legacy.ErrClaims) {
				t.Errorf("%s passes as %s: %v", payload, kind, err)
			}
		}
	}
}

// One kind never passes for the other, whatever the key.
func TestKindsDoNotCross(t *testing.T) {
	for payload, other := range map[string]legacy.Kind{controlPlane: legacy.ZoneIngress, zoneIngress: legacy.ControlPlane} {
		if _, err := legacy.Parse(other, sign(t, header, payload)); !errors.Is(err, legacy.ErrClaims) {
			t.Errorf("%s passes as %s: %v", payload, other, err)
		}
	}
	if _, err := legacy.Parse("dataplane", sign(t, header, zoneIngress)); !errors.Is(err, legacy.ErrClaims) {
		t.Errorf("another kind: %v", err)
	}
	for _, bad := range []struct {
		kind  legacy.Kind
		token legacy.Token
	}{
		{legacy.ControlPlane, legacy.Token{Zone: "west"}}, {legacy.ControlPlane, legacy.Token{Zone: "west", Serial: -1}},
		{legacy.ZoneIngress, legacy.Token{Zone: "west", Serial: 1}}, {legacy.ControlPlane, legacy.Token{Serial: 1}}, {"", legacy.Token{Zone: "west"}},
	} {
		if raw, err := bad.token.Encode(bad.kind, key(t)); err == nil {
			t.Errorf("%+v was made: %s", bad, raw)
		}
	}
}

func TestCompactForm(t *testing.T) {
	good := golden(t, "control-plane.token")
	parts := strings.Split(good, ".")
	code := parts[2]
	for name, raw := range map[string]string{
		"empty": "", "dots": "..", "two parts": parts[0] + "." + parts[1], "four parts": good + ".", "a space": good + " ",
		"a line break": good + "\n", "padding": good + "=", "break within": parts[0] + "." + parts[1] + ".\n" + code,
		"standard alphabet": parts[0] + "." + parts[1] + "." + strings.ReplaceAll(code, "_", "/"), "no code": parts[0] + "." + parts[1] + ".",
		"short code": good[:len(good)-2], "long code": good + "AA", "spare bits": good[:len(good)-1] + "J",
		"too long": good + strings.Repeat("A", legacy.MaxTokenSize), "bearer": "Bearer " + good,
	} {
		if _, err := legacy.Parse(legacy.ControlPlane, raw); !errors.Is(err, legacy.ErrMalformed) {
			t.Errorf("%s passes: %v", name, err)
		}
	}
}

// Each bit of a code counts, and so does the key.
func TestSignature(t *testing.T) {
	good := golden(t, "zone-ingress.token")
	input, code := good[:strings.LastIndex(good, ".")+1], good[strings.LastIndex(good, ".")+1:]
	raw, err := base64.RawURLEncoding.DecodeString(code)
	if err != nil {
		t.Fatal(err)
	}
	for bit := range len(raw) * 8 {
		flipped := bytes.Clone(raw)
		flipped[bit/8] ^= 1 << (bit % 8)
		u, err := legacy.Parse(legacy.ZoneIngress, input+base64.RawURLEncoding.EncodeToString(flipped))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := u.Verify(key(t)); !errors.Is(err, legacy.ErrSignature) {
			t.Errorf("bit %d does not count: %v", bit, err)
		}
	}
	other, err := legacy.NewMAC(append(secret(t), 0))
	if err != nil {
		t.Fatal(err)
	}
	u, err := legacy.Parse(legacy.ZoneIngress, good)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := u.Verify(other); !errors.Is(err, legacy.ErrSignature) {
		t.Errorf("another key verifies: %v", err)
	}
}

func TestReasonsAreStable(t *testing.T) {
	for err, want := range map[error]string{
		legacy.ErrMalformed: "malformed", legacy.ErrClaims: "claims", legacy.ErrUnknownKey: "unknown_key", legacy.ErrSignature: "signature",
		errors.New("anything"): "other",
	} {
		if got := legacy.Reason(fmt.Errorf("because: %w", err)); got != want {
			t.Errorf("%v: %s, want %s", err, got, want)
		}
	}
}

func TestSecretNames(t *testing.T) {
	if name := legacy.ControlPlane.SecretName(1); name != "control-plane-signing-key-0001" {
		t.Error(name)
	}
	if name := legacy.ZoneIngress.SecretName(3); name != "zone-ingress-token-signing-key" {
		t.Error(name)
	}
}

func TestNewSecrets(t *testing.T) {
	one, err := legacy.NewSecret()
	if err != nil {
		t.Fatal(err)
	}
	two, err := legacy.NewSecret()
	if err != nil || bytes.Equal(one, two) {
		t.Fatalf("two secrets are equal (%v)", err)
	}
	if k, err := x509.ParsePKCS1PrivateKey(one); err != nil || k.N.BitLen() != 2048 {
		t.Errorf("not a private RSA key of 2048 bits in PKCS #1: %v", err)
	}
	if err := legacy.CheckSecret(one); err != nil {
		t.Error(err)
	}
}

// keys are private keys of each type.
func keys(t testing.TB) []crypto.Signer {
	t.Helper()
	r, rerr := rsa.GenerateKey(rand.Reader, 2048)
	e, eerr := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	_, d, derr := ed25519.GenerateKey(rand.Reader)
	if err := errors.Join(rerr, eerr, derr); err != nil {
		t.Fatal(err)
	}
	return []crypto.Signer{r, e, d}
}

// A public key is no secret, in whatever form. The bare numbers have no form that
// tells, and are compared with the keys that there are.
func TestPublicKeysAreNoSecrets(t *testing.T) {
	for _, k := range keys(t) {
		forms := legacy.PublicForms(k.Public())
		if len(forms) < 8 {
			t.Errorf("%T has %d forms", k.Public(), len(forms))
		}
		refused := 0
		for _, form := range forms {
			if err := legacy.CheckSecret(form); errors.Is(err, legacy.ErrSecret) {
				refused++
			}
		}
		if refused < 6 {
			t.Errorf("%T: %d forms of %d are refused", k.Public(), refused, len(forms))
		}
	}
	for name, bad := range map[string][]byte{
		"empty": nil, "short": bytes.Repeat([]byte("ab"), 15), "long": bytes.Repeat([]byte("ab"), 5000), "zeros": make([]byte, 64),
		"mostly zeros": append([]byte("fifteen bytes.."), make([]byte, 40)...),
		"JWK":          []byte(`{"kty":"RSA","n":"AAAAAAAAAAAAAAAAAAAAAAAA","e":"AQAB"}`), "JWK set": []byte(`{"keys":[{"kty":"RSA","e":"AQAB"}]}        `),
	} {
		if err := legacy.CheckSecret(bad); !errors.Is(err, legacy.ErrSecret) {
			t.Errorf("%s passes: %v", name, err)
		}
	}
	if err := legacy.CheckSecret(secret(t)); err != nil {
		t.Error(err)
	}
}

// The classic confusion has the forms that its attackers use among those here.
func TestPublicFormsHaveTheUsualOnes(t *testing.T) {
	k := keys(t)[0]
	public := k.Public().(*rsa.PublicKey)
	pkix, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	pkcs1 := x509.MarshalPKCS1PublicKey(public)
	for name, form := range map[string][]byte{
		"PKIX DER": pkix, "PKIX PEM": pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: pkix}),
		"PKCS #1 DER": pkcs1, "PKCS #1 PEM": pem.EncodeToMemory(&pem.Block{Type: "RSA PUBLIC KEY", Bytes: pkcs1}),
	} {
		if !slices.ContainsFunc(legacy.PublicForms(public), func(f []byte) bool { return bytes.Equal(f, form) }) {
			t.Errorf("%s is not among them", name)
		}
	}
}

func TestPublicHalf(t *testing.T) {
	for _, k := range keys(t) {
		pkcs8, err := x509.MarshalPKCS8PrivateKey(k)
		if err != nil {
			t.Fatal(err)
		}
		text := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})
		for _, form := range [][]byte{pkcs8, text, []byte(base64.StdEncoding.EncodeToString(text))} {
			public, ok := legacy.PublicHalf(form)
			if !ok || !public.(interface{ Equal(x crypto.PublicKey) bool }).Equal(k.Public()) {
				t.Errorf("the public half of a %T was not found", k)
			}
		}
	}
	if _, ok := legacy.PublicHalf(bytes.Repeat([]byte("no key "), 9)); ok {
		t.Error("there is a public half of no key")
	}
	if _, ok := legacy.PublicHalf(secret(t)); !ok {
		t.Error("the golden secret has no public half")
	}
}

// Secrets that make the same codes are the same secret, however they are written.
func TestDigestsAreEqualIfCodesAre(t *testing.T) {
	long, short := secret(t), bytes.Repeat([]byte("x7"), 20)
	hashed := sha256.Sum256(long)
	for _, same := range [][2][]byte{{long, hashed[:]}, {short, append(bytes.Clone(short), 0, 0)}} {
		one, two := hmac.New(sha256.New, same[0]), hmac.New(sha256.New, same[1])
		if !hmac.Equal(one.Sum(nil), two.Sum(nil)) {
			t.Fatal("these do not make the same codes")
		}
		if !bytes.Equal(legacy.Digest([16]byte{1}, same[0]), legacy.Digest([16]byte{1}, same[1])) {
			t.Error("their digests differ")
		}
	}
	if bytes.Equal(legacy.Digest([16]byte{1}, long), legacy.Digest([16]byte{1}, short)) ||
		bytes.Equal(legacy.Digest([16]byte{1}, long), legacy.Digest([16]byte{2}, long)) {
		t.Error("digests do not tell secrets or databases apart")
	}
}

// A sealed secret opens where it belongs and nowhere else.
func TestVault(t *testing.T) {
	instance, err := instancekey.Generate()
	if err != nil {
		t.Fatal(err)
	}
	v := legacy.Vault{AEAD: instance.AEAD(), Installation: [16]byte{1}}
	sealed, err := v.Seal(legacy.ControlPlane, 1, secret(t))
	if err != nil || bytes.Contains(sealed, secret(t)[:16]) {
		t.Fatalf("not sealed (%v)", err)
	}
	if opened, err := v.Open(legacy.ControlPlane, 1, sealed); err != nil || !bytes.Equal(opened, secret(t)) {
		t.Errorf("not opened: %v", err)
	}
	k, err := v.Key(legacy.ControlPlane, 1, sealed)
	if err != nil || !bytes.Equal(k.Sum([]byte("m")), key(t).Sum([]byte("m"))) {
		t.Errorf("another key: %v", err)
	}
	if text := fmt.Sprintf("%v %+v %#v %s", k, k, k, k); strings.Contains(text, fmt.Sprint(secret(t)[0])+" ") || text != strings.Repeat("legacy key ", 3)+"legacy key" {
		t.Errorf("printed, a key is %q", text)
	}
	elsewhere := legacy.Vault{AEAD: instance.AEAD(), Installation: [16]byte{2}}
	otherKey, err := instancekey.Generate()
	if err != nil {
		t.Fatal(err)
	}
	changed := bytes.Clone(sealed)
	changed[len(changed)-1]++
	form := bytes.Clone(sealed)
	form[0] = 0x02
	for name, open := range map[string]func() ([]byte, error){
		"another kind":     func() ([]byte, error) { return v.Open(legacy.ZoneIngress, 1, sealed) },
		"another serial":   func() ([]byte, error) { return v.Open(legacy.ControlPlane, 2, sealed) },
		"another database": func() ([]byte, error) { return elsewhere.Open(legacy.ControlPlane, 1, sealed) },
		"another instance key": func() ([]byte, error) {
			return legacy.Vault{AEAD: otherKey.AEAD(), Installation: [16]byte{1}}.Open(legacy.ControlPlane, 1, sealed)
		},
		"a changed byte":  func() ([]byte, error) { return v.Open(legacy.ControlPlane, 1, changed) },
		"another form":    func() ([]byte, error) { return v.Open(legacy.ControlPlane, 1, form) },
		"an unsealed one": func() ([]byte, error) { return v.Open(legacy.ControlPlane, 1, secret(t)) },
		"nothing":         func() ([]byte, error) { return v.Open(legacy.ControlPlane, 1, nil) },
	} {
		if _, err := open(); err == nil {
			t.Errorf("%s opens", name)
		}
	}
}

func TestShortSecretsAreNoKeys(t *testing.T) {
	for _, s := range [][]byte{nil, {}, bytes.Repeat([]byte{7}, legacy.MinSecretSize-1)} {
		if _, err := legacy.NewMAC(s); err == nil {
			t.Errorf("a secret of %d bytes is a key", len(s))
		}
	}
}

// The package knows nothing of what is asymmetric: it imports nothing of ours.
func TestImportsNothingOfOurs(t *testing.T) {
	files, err := filepath.Glob("*.go")
	if err != nil || len(files) < 5 {
		t.Fatalf("%d files: %v", len(files), err)
	}
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(gotoken.NewFileSet(), name, nil, parser.ImportsOnly)
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range f.Imports {
			if strings.Contains(i.Path.Value, ".") {
				t.Errorf("%s imports %s", name, i.Path.Value)
			}
		}
	}
}

// FuzzParse: what is read is what would be written, to the byte.
func FuzzParse(f *testing.F) {
	seeds := 0
	for _, kind := range legacy.Kinds() {
		f.Add(golden(f, string(kind)+".token"))
		seeds++
	}
	if seeds == 0 {
		f.Fatal("no seeds")
	}
	f.Add(sign(f, header, `{"Zone":"w\u003cest"}`))
	f.Fuzz(func(t *testing.T, raw string) {
		for _, kind := range legacy.Kinds() {
			u, err := legacy.Parse(kind, raw)
			if err != nil {
				continue
			}
			token, err := u.Verify(key(t))
			if err != nil {
				continue
			}
			if again, err := token.Encode(kind, key(t)); err != nil || again != raw {
				t.Errorf("%s was read, and is written as %s (%v)", raw, again, err)
			}
		}
	})
}
