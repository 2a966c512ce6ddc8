//go:build cgo && linux

package pkcs11_test

import (
	"bytes"
	"crypto/elliptic"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/eclipse-keypont/crypto11"

	"github.com/zonemint/zonemint/backends/pkcs11"
	"github.com/zonemint/zonemint/signer"
)

func wantOpenCode(t *testing.T, what string, err error, want signer.Code) {
	t.Helper()
	if err == nil || code(err) != want {
		t.Errorf("%s: got %v, want code %q", what, err, want)
	}
	if err != nil && (strings.Contains(err.Error(), pin) || strings.Contains(err.Error(), wrongPIN)) {
		t.Errorf("%s: the error contains a PIN", what)
	}
}

func wantCode(t *testing.T, what string, err error, want signer.Code) {
	t.Helper()
	if err == nil || signer.CodeOf(err) != want {
		t.Errorf("%s: got %v, want code %q", what, err, want)
	}
}

func TestAWrongPINIsTriedOnce(t *testing.T) {
	label := newToken(t)
	var modules pkcs11.Modules
	opts := options(softHSM, label)
	opts.PINEnv = wrongEnv
	_, first := modules.Open(t.Context(), opts)
	wantOpenCode(t, "a wrong PIN", first, signer.Denied)
	// Nor is another one: that it is right nobody knows before it is tried.
	_, again := modules.Open(t.Context(), options(softHSM, label))
	wantOpenCode(t, "the right PIN after a wrong one", again, signer.Denied)

	var restarted pkcs11.Modules
	open(t, &restarted, options(softHSM, label))
	_, err := restarted.Open(t.Context(), opts)
	wantOpenCode(t, "a wrong PIN for a token that is logged into", err, signer.Denied)
}

// A token that comes back with another PIN is lost, and told so once.
func TestAPINThatWasChangedIsTriedOnce(t *testing.T) {
	h := newHSM(t)
	var modules pkcs11.Modules
	b := open(t, &modules, h.options256())
	key := newKey(t, b, signer.ES256)
	h.kill()
	right := os.Getenv(confNamed)
	anotherTokenFolder(t)
	initToken(t, h.label, wrongPIN)
	h.start(t)
	for err := key.Probe(t.Context()); signer.CodeOf(err) != signer.Denied; err = key.Probe(t.Context()) {
		if err == nil || signer.CodeOf(err) != signer.Unavailable {
			t.Fatalf("the PIN has changed: %v", err)
		}
	}
	h.kill()
	t.Setenv(confNamed, right)
	h.start(t)
	wantCode(t, "with the old token back", key.Probe(t.Context()), signer.Denied)
	if s := b.Stats(); !s.Tokens[0].Denied {
		t.Errorf("stats: %+v", s)
	}
}

// anotherTokenFolder is for programs that are started from now on.
func anotherTokenFolder(t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	conf := filepath.Join(dir, "softhsm2.conf")
	if err := os.WriteFile(conf, []byte("directories.tokendir = "+dir+"\nobjectstore.backend = file\n"), fileMode); err != nil {
		t.Fatal(err)
	}
	t.Setenv(confNamed, conf)
}

func TestWhatCannotBeOpenedIsRefused(t *testing.T) {
	label := newToken(t)
	var modules pkcs11.Modules
	noModule := filepath.Join(t.TempDir(), "text.so")
	if err := os.WriteFile(noModule, []byte("text"), fileMode); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(*pkcs11.Options){
		"no such file":   func(o *pkcs11.Options) { o.Module = "/nowhere/hsm.so" },
		"no module":      func(o *pkcs11.Options) { o.Module = noModule },
		"no such token":  func(o *pkcs11.Options) { o.TokenLabel = "nobody's" },
		"no such serial": func(o *pkcs11.Options) { o.TokenLabel, o.TokenSerial = "", "nobody's" },
		"no PIN":         func(o *pkcs11.Options) { o.PINEnv = "ZONEMINT_TEST_UNSET" },
		"EdDSA":          func(o *pkcs11.Options) { o.Algorithms = []signer.Algorithm{signer.EdDSA} },
	} {
		opts := options(softHSM, label)
		spoil(&opts)
		_, err := modules.Open(t.Context(), opts)
		wantOpenCode(t, name, err, signer.Misconfigured)
	}
	initToken(t, label, pin)
	_, err := modules.Open(t.Context(), options(softHSM, label))
	wantOpenCode(t, "two tokens of that name", err, signer.Misconfigured)
}

func TestKeysAreProtectedAndSignOnly(t *testing.T) {
	label := newToken(t)
	var modules pkcs11.Modules
	b := open(t, &modules, options(softHSM, label))
	ctx := raw(t, softHSM, label, pin)
	for _, alg := range []signer.Algorithm{signer.RS256, signer.ES256} {
		s := newSpec(alg)
		ref, err := signer.Create(t.Context(), b, s)
		if err != nil {
			t.Fatal(err)
		}
		id, keyLabel := parts(t, ref)
		if len(id) != 16 || keyLabel != s.Label {
			t.Errorf("id %x, label %q", id, keyLabel)
		}
		pairs, err := ctx.FindKeyPairs(id, []byte(s.Label))
		if err != nil || len(pairs) != 1 {
			t.Fatalf("%d keys: %v", len(pairs), err)
		}
		for name, want := range map[crypto11.AttributeType]byte{
			crypto11.CkaPrivate: 1, crypto11.CkaSensitive: 1, crypto11.CkaAlwaysSensitive: 1, crypto11.CkaExtractable: 0,
			crypto11.CkaNeverExtractable: 1, crypto11.CkaLocal: 1, crypto11.CkaSign: 1, crypto11.CkaDecrypt: 0,
		} {
			if name == crypto11.CkaDecrypt && alg == signer.ES256 {
				continue // ECDSA keys cannot, whatever it says
			}
			if got, err := ctx.GetAttribute(pairs[0], name); err != nil || !bytes.Equal(got.Value, []byte{want}) {
				t.Errorf("%s: attribute %x is %v, want %d: %v", alg, name, got, want, err)
			}
		}
	}
}

func TestOpenRefusesTheKeyOfAnotherLabel(t *testing.T) {
	label := newToken(t)
	var modules pkcs11.Modules
	b := open(t, &modules, options(softHSM, label))
	s := newSpec(signer.ES256)
	ref, err := signer.Create(t.Context(), b, s)
	if err != nil {
		t.Fatal(err)
	}
	other := newSpec(signer.ES256)
	_, err = signer.Open(t.Context(), b, other, ref, nil)
	wantCode(t, "open", err, signer.Corrupt)
	wantCode(t, "destroy", signer.Destroy(t.Context(), b, other, ref), signer.Corrupt)
	id, _ := parts(t, ref)
	_, err = signer.Open(t.Context(), b, other, refOf(id, other.Label), nil)
	wantCode(t, "the id under another label", err, signer.NotFound)
}

func TestKeysThatShareANameAreRefused(t *testing.T) {
	label := newToken(t)
	var modules pkcs11.Modules
	b := open(t, &modules, options(softHSM, label))
	s := newSpec(signer.ES256)
	ref, err := signer.Create(t.Context(), b, s)
	if err != nil {
		t.Fatal(err)
	}
	id, _ := parts(t, ref)
	if _, err := raw(t, softHSM, label, pin).GenerateECDSAKeyPairWithLabel(id, []byte(s.Label), elliptic.P256()); err != nil {
		t.Fatal(err)
	}
	_, err = signer.Open(t.Context(), b, s, ref, nil)
	wantCode(t, "open", err, signer.Corrupt)
	wantCode(t, "destroy", signer.Destroy(t.Context(), b, s, ref), signer.Corrupt)
}

func TestDestroyDeletesBothHalves(t *testing.T) {
	label := newToken(t)
	var modules pkcs11.Modules
	b := open(t, &modules, options(softHSM, label))
	s := newSpec(signer.ES256)
	ref, err := signer.Create(t.Context(), b, s)
	if err != nil {
		t.Fatal(err)
	}
	before := objects(t)
	if err := signer.Destroy(t.Context(), b, s, ref); err != nil {
		t.Fatal(err)
	}
	if gone := before - objects(t); gone != 2 {
		t.Errorf("%d objects are gone, want 2", gone)
	}
}

// objects counts those of all tokens of this process.
func objects(t *testing.T) int {
	t.Helper()
	all, err := filepath.Glob(filepath.Join(filepath.Dir(os.Getenv(confNamed)), "tokens", "*", "*.object"))
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

func TestAdoptedKeysSign(t *testing.T) {
	label := newToken(t)
	var modules pkcs11.Modules
	b := open(t, &modules, options(softHSM, label))
	ctx := raw(t, softHSM, label, pin)
	if _, err := ctx.GenerateECDSAKeyPairWithLabel([]byte("an id"), []byte("of: before"), elliptic.P256()); err != nil {
		t.Fatal(err)
	}
	if _, err := ctx.GenerateECDSAKeyPair([]byte("no label"), elliptic.P256()); err != nil {
		t.Fatal(err)
	}
	s := newSpec(signer.ES256)
	for name, key := range map[string]string{
		"by label": "pkcs11:object=of%3A%20before", "by id": "pkcs11:id=%61n%20id", "by both": "pkcs11:id=an%20id;object=of:%20before",
		"by id, without a label": "pkcs11:id=no%20label",
	} {
		ref, err := signer.Adopt(t.Context(), b, s, key)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		k, err := signer.Open(t.Context(), b, s, ref, nil)
		if err == nil {
			err = k.Probe(t.Context())
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestWhatCannotBeAdopted(t *testing.T) {
	label := newToken(t)
	var modules pkcs11.Modules
	b := open(t, &modules, options(softHSM, label))
	ctx := raw(t, softHSM, label, pin)
	for _, id := range []string{"one", "two"} {
		if _, err := ctx.GenerateECDSAKeyPairWithLabel([]byte(id), []byte("shared"), elliptic.P256()); err != nil {
			t.Fatal(err)
		}
	}
	ours := newSpec(signer.ES256)
	if _, err := signer.Create(t.Context(), b, ours); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		spec signer.Spec
		name string
		want signer.Code
	}{
		"nothing named":             {newSpec(signer.ES256), "pkcs11:", signer.Misconfigured},
		"no URI":                    {newSpec(signer.ES256), "one", signer.Misconfigured},
		"a URI of a token":          {newSpec(signer.ES256), "pkcs11:token=other;object=one", signer.Misconfigured},
		"a URI with a PIN":          {newSpec(signer.ES256), "pkcs11:id=one?pin-value=1234", signer.Misconfigured},
		"an id twice":               {newSpec(signer.ES256), "pkcs11:id=one;id=two", signer.Misconfigured},
		"a label of two keys":       {newSpec(signer.ES256), "pkcs11:object=shared", signer.Corrupt},
		"no such key":               {newSpec(signer.ES256), "pkcs11:id=three", signer.NotFound},
		"another algorithm":         {newSpec(signer.RS256), "pkcs11:id=one", signer.Misconfigured},
		"EdDSA":                     {newSpec(signer.EdDSA), "pkcs11:id=one", signer.Unsupported},
		"another key of zonemint's": {newSpec(signer.ES256), "pkcs11:object=" + ours.Label, signer.Misconfigured},
	} {
		_, err := b.Adopt(t.Context(), c.spec, c.name)
		wantOpenCode(t, name, err, c.want)
	}
}

// A token folder that was not mounted looks like one without keys.
func TestAKeyThatWasAwaySignsAgain(t *testing.T) {
	label := newToken(t)
	var modules pkcs11.Modules
	b := open(t, &modules, options(softHSM, label))
	key := newKey(t, b, signer.ES256)
	newKey(t, b, signer.RS256)
	tokens := filepath.Join(filepath.Dir(os.Getenv(confNamed)), "tokens")
	if err := os.Rename(tokens, tokens+".away"); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		wantCode(t, "without the tokens", key.Probe(t.Context()), signer.Unavailable)
	}
	if b.Stats().DownSince.IsZero() {
		t.Error("the tokens are away and the module counts as up")
	}
	if err := os.Rename(tokens+".away", tokens); err != nil {
		t.Fatal(err)
	}
	untilSigns(t, key)
}

func TestAKeyThatSomebodyDestroyedIsNotFound(t *testing.T) {
	label := newToken(t)
	var modules pkcs11.Modules
	b := open(t, &modules, options(softHSM, label))
	key := newKey(t, b, signer.ES256)
	s := newSpec(signer.ES256)
	ref, err := signer.Create(t.Context(), b, s)
	if err != nil {
		t.Fatal(err)
	}
	destroyed, err := signer.Open(t.Context(), b, s, ref, nil)
	if err != nil {
		t.Fatal(err)
	}
	unplug(t, raw(t, softHSM, label, pin), ref)
	wantCode(t, "a destroyed key", destroyed.Probe(t.Context()), signer.NotFound)
	if err := key.Probe(t.Context()); err != nil || b.Stats().Reconnects > 0 {
		t.Errorf("another key was hit: %v, %+v", err, b.Stats())
	}
}

func TestTwoTokensOfAModuleShareItsOwner(t *testing.T) {
	var modules pkcs11.Modules
	labels := []string{newToken(t), newToken(t)} // before SoftHSM looks which there are
	one := open(t, &modules, options(softHSM, labels[0]))
	two := open(t, &modules, options(softHSM, labels[1]))
	keys := []*signer.Key{newKey(t, one, signer.ES256), newKey(t, two, signer.ES256)}
	if all := modules.Stats(); len(all) != 1 || len(all[0].Tokens) != 2 {
		t.Errorf("stats: %+v", all)
	}
	for _, key := range keys {
		if err := key.Probe(t.Context()); err != nil {
			t.Error(err)
		}
	}
	if err := one.Close(); err != nil {
		t.Error(err)
	}
	if err := keys[1].Probe(t.Context()); err != nil {
		t.Errorf("after the other backend was closed: %v", err)
	}
	if err := two.Close(); err != nil {
		t.Error(err)
	}
	if all := modules.Stats(); len(all) != 0 {
		t.Errorf("nothing is open and there are stats: %+v", all)
	}
}
