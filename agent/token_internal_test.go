package agent

import (
	"encoding/base64"
	"strings"
	"testing"
)

func encoded(parts ...string) string {
	for i, p := range parts {
		parts[i] = base64.RawURLEncoding.EncodeToString([]byte(p))
	}
	return strings.Join(parts, ".")
}

func TestParse(t *testing.T) {
	const header, claims = `{"alg":"RS256","kid":"zone-1"}`, `{"Zone":"east","jti":"i","iat":1800000000,"exp":1800003600}`
	good := encoded(header, claims, "s")
	got, body, err := parse(good)
	if err != nil || got.ID != "i" || got.KeyID != "zone-1" || got.life().Hours() != 1 || string(body) != claims {
		t.Errorf("got %#v, %s, %v", got, body, err)
	}
	for name, raw := range map[string]string{
		"empty":               "",
		"a newline":           good + "\n",
		"two parts":           encoded(header, claims),
		"four parts":          good + ".x",
		"no signature":        encoded(header, claims, ""),
		"padding":             encoded(header, claims) + ".cw==",
		"a list":              encoded(header, "[]", "s"),
		"null":                encoded(header, "null", "s"),
		"half of an object":   encoded(header, claims[:20], "s"),
		"a word for a number": encoded(header, `{"jti":"i","iat":"1","exp":2}`, "s"),
		"no end":              encoded(header, `{"jti":"i","iat":1}`, "s"),
		"no beginning":        encoded(header, `{"jti":"i","exp":1}`, "s"),
		"no ID":               encoded(header, `{"iat":1,"exp":2}`, "s"),
		"backwards":           encoded(header, `{"jti":"i","iat":2,"exp":1}`, "s"),
		"very long":           encoded(header, claims, strings.Repeat("s", maxTokenSize)),
	} {
		if _, _, err := parse(raw); err == nil || len(raw) > 20 && strings.Contains(err.Error(), raw[:20]) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(encoded(`{"kid":"k"}`, `{"jti":"i","iat":1,"exp":2}`, "s"))
	f.Add("a.b.c")
	f.Add(encoded(`{}`, `{"exp":1e400}`, "s"))
	f.Fuzz(func(t *testing.T, raw string) {
		got, body, err := parse(raw)
		if err == nil && (got.ID == "" || got.life() <= 0 || len(body) == 0 || strings.ContainsAny(raw, "\n ")) {
			t.Errorf("%q gave %#v", raw, got)
		}
	})
}
