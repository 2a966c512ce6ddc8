package instancekey_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/insecurecleartextkeyset"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/mac"

	tinkpb "github.com/tink-crypto/tink-go/v2/proto/tink_go_proto"

	"github.com/zonemint/zonemint/instancekey"
)

func generate(tb testing.TB) *instancekey.Key {
	tb.Helper()
	key, err := instancekey.Generate()
	return must(tb, key, err)
}

func must[T any](tb testing.TB, value T, err error) T {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
	return value
}

func marshal(tb testing.TB, key *instancekey.Key) []byte {
	tb.Helper()
	data, err := key.Marshal()
	return must(tb, data, err)
}

// written is something that a key has encrypted and authenticated.
type written struct{ ciphertext, tag []byte }

func write(tb testing.TB, key *instancekey.Key) written {
	tb.Helper()
	ciphertext, err := key.AEAD().Encrypt([]byte("plaintext"), []byte("row 1"))
	tag, err2 := key.MAC().ComputeMAC([]byte("row 1"))
	return written{must(tb, ciphertext, err), must(tb, tag, err2)}
}

// readable returns an error unless key can read all of w.
func (w written) readable(key *instancekey.Key) error {
	plaintext, err := key.AEAD().Decrypt(w.ciphertext, []byte("row 1"))
	if err != nil {
		return err
	}
	if string(plaintext) != "plaintext" {
		return fmt.Errorf("plaintext is %q", plaintext)
	}
	return key.MAC().VerifyMAC(w.tag, []byte("row 1"))
}

func TestRoundTrip(t *testing.T) {
	key := generate(t)
	again, err := instancekey.Parse(marshal(t, key))
	if err != nil {
		t.Fatal(err)
	}
	w := write(t, key)
	if err := w.readable(again); err != nil {
		t.Error(err)
	}
	if again.ID() != key.ID() {
		t.Errorf("ID was %s, is %s", key.ID(), again.ID())
	}
	if err := w.readable(generate(t)); err == nil {
		t.Error("another key reads it")
	}
	if _, err := key.AEAD().Decrypt(w.ciphertext, []byte("row 2")); err == nil {
		t.Error("the associated data is not looked at")
	}
	if err := key.MAC().VerifyMAC(w.tag, []byte("row 2")); err == nil {
		t.Error("the authenticated data is not looked at")
	}
}

func TestRotate(t *testing.T) {
	first := generate(t)
	byFirst := write(t, first)
	staged, err := first.Stage()
	must(t, staged, err)
	byStaged := write(t, staged)
	second, err := staged.Promote()
	must(t, second, err)
	bySecond := write(t, second)
	pruned, err := second.Prune()
	must(t, pruned, err)

	for _, tc := range []struct {
		name string
		key  *instancekey.Key
		w    written
		ok   bool
	}{
		{"first, of staged", first, byStaged, true},
		{"first, of second", first, bySecond, false},
		{"staged, of second", staged, bySecond, true},
		{"second, of first", second, byFirst, true},
		{"second, of staged", second, byStaged, true},
		{"pruned, of first", pruned, byFirst, false},
		{"pruned, of second", pruned, bySecond, true},
	} {
		if err := tc.w.readable(tc.key); (err == nil) != tc.ok {
			t.Errorf("%s: %v, want success %v", tc.name, err, tc.ok)
		}
	}
	if staged.ID() != first.ID() || second.ID() == first.ID() || pruned.ID() != second.ID() {
		t.Errorf("IDs are %s, staged %s, promoted %s, pruned %s", first.ID(), staged.ID(), second.ID(), pruned.ID())
	}
	if got := len(second.Members()); got != 4 {
		t.Errorf("%d members after one rotation, want 4", got)
	}

	rotated, err := second.Rotate()
	must(t, rotated, err)
	reread, err := instancekey.Parse(marshal(t, rotated))
	must(t, reread, err)
	for _, w := range []written{byFirst, bySecond, write(t, rotated)} {
		if err := w.readable(reread); err != nil {
			t.Errorf("after two rotations: %v", err)
		}
	}
}

// TestTextRevealsNothing prints a key in every way that a log might.
func TestTextRevealsNothing(t *testing.T) {
	key := generate(t)
	secrets := keyMaterial(t, marshal(t, key))
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x"} {
		text := fmt.Sprintf(verb, key)
		for _, secret := range secrets {
			if strings.Contains(text, secret) {
				t.Errorf("%s prints key material", verb)
			}
		}
	}
	members := key.Members()
	if len(members) != 2 || !members[0].Primary || !members[1].Primary ||
		members[0].ID+"-"+members[1].ID != key.ID() {
		t.Errorf("members %+v do not agree with ID %s", members, key.ID())
	}
	if !regexp.MustCompile(`^instance key [0-9a-f]{8}-[0-9a-f]{8}$`).MatchString(key.String()) {
		t.Errorf("text is %q", key)
	}
}

// keyMaterial returns the secret parts of a marshalled key in several forms.
func keyMaterial(tb testing.TB, data []byte) []string {
	tb.Helper()
	var secrets []string
	for _, m := range regexp.MustCompile(`"value":\s*"([^"]+)"`).FindAllSubmatch(data, -1) {
		raw, err := base64.StdEncoding.DecodeString(string(m[1]))
		must(tb, raw, err)
		secrets = append(secrets, string(m[1]), string(m[1][:12]), hex.EncodeToString(raw), string(raw))
	}
	if len(secrets) == 0 {
		tb.Fatal("no key material found")
	}
	return secrets
}

// tinkKeyset is a keyset of a kind that no instance key has.
func tinkKeyset(tb testing.TB, template *tinkpb.KeyTemplate) string {
	tb.Helper()
	handle, err := keyset.NewHandle(template)
	must(tb, handle, err)
	var buf bytes.Buffer
	if err := insecurecleartextkeyset.Write(handle, keyset.NewJSONWriter(&buf)); err != nil {
		tb.Fatal(err)
	}
	return buf.String()
}

func TestParseRefuses(t *testing.T) {
	good := marshal(t, generate(t))
	var doc struct{ AEAD, MAC json.RawMessage }
	if err := json.Unmarshal(good, &doc); err != nil {
		t.Fatal(err)
	}
	a, m := string(doc.AEAD), string(doc.MAC)
	document := func(a, m string) string { return fmt.Sprintf(`{"aead":%s,"mac":%s}`, a, m) }
	if _, err := instancekey.Parse([]byte(document(a, m))); err != nil {
		t.Fatalf("the good one: %v", err)
	}
	disabled := strings.Replace(a, `"ENABLED"`, `"DISABLED"`, 1)
	value := regexp.MustCompile(`"value":\s*"([^"]{20})`)
	for name, text := range map[string]string{
		"empty":              "",
		"no JSON":            "zonemint",
		"an array":           "[]",
		"null":               "null",
		"no members":         "{}",
		"one member":         `{"aead":` + a + `}`,
		"null members":       document("null", "null"),
		"a member too many":  document(a, m+`,"kms":"x"`),
		"something after it": document(a, m) + "{}",
		"cut short":          string(good[:len(good)-40]),
		"swapped":            document(m, a),
		"twice the same":     document(a, a),
		"no keyset":          document(`"text"`, m),
		"an empty keyset":    document(`{"primaryKeyId":1,"key":[]}`, m),
		"no base64":          document(value.ReplaceAllString(a, `"value":"$1!"`), m),
		"another length":     document(value.ReplaceAllString(a, `"value":"$1`+"AAAA"), m),
		"a value no string":  document(strings.Replace(a, `"value"`, `"value":1,"value"`, 1), m),
		"disabled":           document(disabled, m),
		"AES-128":            document(tinkKeyset(t, aead.AES128GCMKeyTemplate()), m),
		"another cipher":     document(tinkKeyset(t, aead.XChaCha20Poly1305KeyTemplate()), m),
		"no Tink prefix":     document(tinkKeyset(t, aead.AES256GCMNoPrefixKeyTemplate()), m),
		"a short tag":        document(a, tinkKeyset(t, mac.HMACSHA256Tag128KeyTemplate())),
		"another hash":       document(a, tinkKeyset(t, mac.HMACSHA512Tag256KeyTemplate())),
	} {
		t.Run(name, func(t *testing.T) {
			key, err := instancekey.Parse([]byte(text))
			if err == nil {
				t.Fatalf("accepted as %v", key)
			}
			for _, secret := range keyMaterial(t, good) {
				if strings.Contains(err.Error(), secret) {
					t.Errorf("%v contains key material", err)
				}
			}
		})
	}
}

// TestVector reads a key of the first released form and what it wrote. The key
// in testdata was made for this test and protects nothing.
func TestVector(t *testing.T) {
	data, err := os.ReadFile(filepath.Join("testdata", "v1.json"))
	must(t, data, err)
	key, err := instancekey.Parse(data)
	must(t, key, err)
	read := func(name string) []byte {
		text, err := os.ReadFile(filepath.Join("testdata", name))
		must(t, text, err)
		raw, err := hex.DecodeString(strings.TrimSpace(string(text)))
		return must(t, raw, err)
	}
	if err := (written{read("v1.ciphertext.hex"), read("v1.tag.hex")}).readable(key); err != nil {
		t.Error(err)
	}
}

// longWord is longer than any word of an error text of the package, and as
// short as a piece of key material that would matter.
var longWord = regexp.MustCompile(`[A-Za-z0-9+/=_-]{14,}`)

func FuzzParse(f *testing.F) {
	seeds, err := filepath.Glob("testdata/*.json")
	if err != nil || len(seeds) == 0 {
		f.Fatal("no seed vectors", err)
	}
	for _, name := range seeds {
		data, err := os.ReadFile(name)
		f.Add(must(f, data, err))
	}
	f.Add([]byte(`{"aead":{},"mac":{}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		key, err := instancekey.Parse(bytes.Clone(data))
		if err != nil {
			for _, word := range longWord.FindAllString(err.Error(), -1) {
				if bytes.Contains(data, []byte(word)) && word != "authentication" {
					t.Errorf("%v quotes its input", err)
				}
			}
			return
		}
		again, err := instancekey.Parse(marshal(t, key))
		if err != nil {
			t.Fatalf("accepted, but not in its own form: %v", err)
		}
		if again.ID() != key.ID() {
			t.Errorf("ID was %s, is %s", key.ID(), again.ID())
		}
		if err := write(t, key).readable(again); err != nil {
			t.Error(err)
		}
	})
}
