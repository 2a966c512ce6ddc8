package token_test

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/zonemint/zonemint/token"
)

// vector is one token and what a zone verifier says to it at testTime.
type vector struct {
	Name   string `json:"name"`
	Reason string `json:"reason"` // "ok" if it is good
	Token  string `json:"token"`
}

const goodID = "0198c5f0-7a3e-7d5a-9b1c-2f4e6a8c0d1e"

// payload returns a good zone payload after some replacements, given as pairs of
// old and new text.
func payload(replacements ...string) string {
	c := token.ZoneClaims{Zone: "west", Scope: token.DefaultScopes(), Registered: registered()}
	p := string(c.AppendJSON(nil))
	for i := 0; i < len(replacements); i += 2 {
		if !strings.Contains(p, replacements[i]) {
			panic("payload has no " + replacements[i])
		}
		p = strings.Replace(p, replacements[i], replacements[i+1], 1)
	}
	return p
}

// with adds members to a payload or header.
func with(object, members string) string { return object[:len(object)-1] + "," + members + "}" }

func at(d time.Duration) string { return fmt.Sprint(testTime.Add(d).Unix()) }

func vectors(all issuers) []vector {
	var list []vector
	list = append(list, goodVectors(all)...)
	list = append(list, algorithmVectors(all)...)
	list = append(list, headerVectors(all["RS256"])...)
	list = append(list, encodingVectors(all["RS256"])...)
	list = append(list, claimVectors(all["ES256"])...)
	list = append(list, dateVectors(all["ES256"])...)
	return append(list, profileVectors(all["ES256"])...)
}

func goodVectors(all issuers) []vector {
	var list []vector
	for _, alg := range token.Algorithms() {
		list = append(list, vector{"good-" + strings.ToLower(alg), "ok", all[alg].token(payload())})
	}
	es := all["ES256"]
	return append(list, []vector{
		{"good-without-typ", "ok", es.tokenWith(fmt.Sprintf(`{"alg":"ES256","kid":%q}`, es.kid), payload())},
		{"good-with-unknown-header", "ok", es.tokenWith(with(es.header(), `"cty":"x"`), payload())},
		{"good-with-unknown-claim", "ok", es.token(with(payload(), `"sub":"x","color":{"a":[1]}`))},
		{"good-with-issuer", "ok", es.token(with(payload(), `"iss":"https://tokens.example.com"`))},
		{"good-without-nbf-and-iat", "ok", es.token(fmt.Sprintf(`{"Zone":"west","Scope":["cp"],"exp":%s,"jti":"x"}`, at(time.Hour)))},
		{"good-with-spaces-and-escapes", "ok", es.token(" " + payload("west", `\u0077est`) + "\n")},
		{"good-until-next-second", "ok", es.token(payload(at(time.Hour), at(time.Second)))},
		{"good-from-this-second", "ok", es.token(payload(`"nbf":`+at(-5*time.Second), `"nbf":`+at(0), `"iat":`+at(-5*time.Second), `"iat":`+at(0)))},
	}...)
}

// hmacToken signs with HS256, the way a verifier would check it that trusts the
// header's alg and hands its public key to the HMAC.
func hmacToken(kid string, secret []byte) string {
	h := fmt.Sprintf(`{"alg":"HS256","kid":%q,"typ":"JWT"}`, kid)
	input := b64(h) + "." + b64(payload())
	return input + "." + b64(string(must(jwt.SigningMethodHS256.Sign(input, secret))))
}

func algorithmVectors(all issuers) []vector {
	rs, es := all["RS256"], all["ES256"]
	public := rs.private.Public().(*rsa.PublicKey)
	spki := must(x509.MarshalPKIXPublicKey(public))
	pkcs1 := x509.MarshalPKCS1PublicKey(public)
	toPEM := func(typ string, der []byte) []byte {
		return pem.EncodeToMemory(&pem.Block{Type: typ, Bytes: der})
	}
	unsigned := func(alg string) string {
		return b64(fmt.Sprintf(`{"alg":%q,"kid":%q,"typ":"JWT"}`, alg, rs.kid)) + "." + b64(payload()) + "."
	}
	rs512, ps256 := rs, rs
	rs512.alg, ps256.alg = "RS512", "PS256"
	esInput := b64(es.header()) + "." + b64(payload())
	digest := sha256.Sum256([]byte(esInput))
	der := must(es.private.Sign(nil, digest[:], crypto.SHA256))
	ps := all["PS256"]
	psInput := b64(ps.header()) + "." + b64(payload())
	psDigest := sha256.Sum256([]byte(psInput))
	salted := must(ps.private.Sign(rand.Reader, psDigest[:], &rsa.PSSOptions{Hash: crypto.SHA256, SaltLength: 20}))
	esKID := fmt.Sprintf(`{"alg":"RS256","kid":%q,"typ":"JWT"}`, es.kid)
	good := rs.token(payload())
	return []vector{
		{"alg-none", "algorithm", unsigned("none")},
		{"alg-none-in-other-case", "algorithm", unsigned("nOnE")},
		{"alg-none-with-signature", "algorithm", unsigned("none") + b64("signature")},
		{"alg-hs256-with-public-pem", "algorithm", hmacToken(rs.kid, toPEM("PUBLIC KEY", spki))},
		{"alg-hs256-with-public-pkcs1-pem", "algorithm", hmacToken(rs.kid, toPEM("RSA PUBLIC KEY", pkcs1))},
		{"alg-hs256-with-public-der", "algorithm", hmacToken(rs.kid, spki)},
		{"alg-hs256-with-public-pkcs1-der", "algorithm", hmacToken(rs.kid, pkcs1)},
		{"alg-hs256-with-empty-secret", "algorithm", hmacToken(rs.kid, []byte{})},
		{"alg-of-same-family", "algorithm", rs512.token(payload())},
		{"alg-pss-for-pkcs1-key", "algorithm", ps256.token(payload())},
		{"alg-rsa-for-ecdsa-key", "algorithm", rs.tokenWith(esKID, payload())},
		{"alg-in-lower-case", "algorithm", rs.tokenWith(strings.Replace(rs.header(), "RS256", "rs256", 1), payload())},
		{"signature-empty", "signature", unsigned("RS256")},
		{"signature-of-foreign-key", "signature", foreignIssuer().as(rs.kid).token(payload())},
		{"signature-of-other-payload", "signature", b64(rs.header()) + "." + b64(payload("west", "east")) + good[strings.LastIndex(good, "."):]},
		{"signature-pss-with-other-salt", "signature", psInput + "." + b64(string(salted))},
		{"signature-ecdsa-in-der", "signature", esInput + "." + b64(string(der))},
		{"signature-ecdsa-all-zero", "signature", esInput + "." + b64(string(make([]byte, 64)))},
		{"signature-ecdsa-too-long", "signature", es.token(payload()) + "AAAA"},
	}
}

func headerVectors(is issuer) []vector {
	h := is.header()
	replace := func(from, to string) string {
		if !strings.Contains(h, from) {
			panic("header has no " + from)
		}
		return is.tokenWith(strings.Replace(h, from, to, 1), payload())
	}
	kid := fmt.Sprintf(`"kid":%q`, is.kid)
	list := []vector{
		{"kid-foreign", "unknown_key", foreignIssuer().token(payload())},
		{"kid-number", "malformed", replace(kid, `"kid":1`)},
		{"kid-null", "malformed", replace(kid, `"kid":null`)},
		{"kid-missing", "malformed", replace(kid+",", "")},
		{"kid-empty", "malformed", replace(kid, `"kid":""`)},
		{"kid-too-long", "malformed", replace(is.kid, strings.Repeat("k", token.MaxKeyIDLength+1))},
		{"kid-path", "unknown_key", replace(is.kid, "../../dev/null")},
		{"kid-in-upper-case-name", "malformed", replace(`"kid"`, `"KID"`)},
		{"kid-twice", "malformed", is.tokenWith(with(h, kid), payload())},
		{"kid-in-two-cases", "malformed", is.tokenWith(with(h, `"Kid":"x"`), payload())},
		{"alg-missing", "malformed", replace(`"alg":"RS256",`, "")},
		{"alg-number", "malformed", replace(`"RS256"`, "256")},
		{"alg-twice", "malformed", is.tokenWith(with(h, `"alg":"none"`), payload())},
		{"alg-twice-by-escape", "malformed", is.tokenWith(with(h, `"\u0061lg":"none"`), payload())},
		{"typ-other", "malformed", replace(`"JWT"`, `"at+jwt"`)},
		{"typ-in-lower-case", "malformed", replace(`"JWT"`, `"jwt"`)},
		{"typ-number", "malformed", replace(`"JWT"`, `1`)},
		{"header-trailing-object", "malformed", is.tokenWith(h+"{}", payload())},
		{"header-trailing-bytes", "malformed", is.tokenWith(h+"\x00", payload())},
		{"header-array", "malformed", is.tokenWith("["+h+"]", payload())},
		{"header-null", "malformed", is.tokenWith("null", payload())},
		{"header-not-utf8", "malformed", is.tokenWith(with(h, "\"x\":\"\xff\""), payload())},
		{"header-too-long", "malformed", is.tokenWith(with(h, `"x":"`+strings.Repeat("x", 2048)+`"`), payload())},
	}
	jwk := string(must(must(token.NewKeySet(must(token.NewKey("k", "RS256", foreignIssuer().private.Public())))).MarshalJSON()))
	jwk = jwk[len(`{"keys":[`) : len(jwk)-len(`]}`)]
	for name, value := range map[string]string{
		"crit": `["exp"]`, "b64": `false`, "jwk": jwk, "jku": `"https://evil.example/jwks.json"`, "x5t": `"AAAA"`,
		"x5u": `"https://evil.example/cert.pem"`, "x5c": `["MIIB"]`, "x5t#S256": `"AAAA"`, "JKU": `"https://evil.example"`,
	} {
		file := strings.ReplaceAll(strings.ReplaceAll(name, "#", "-"), "JKU", "jku-in-upper-case")
		list = append(list, vector{"header-" + file, "malformed", foreignIssuer().as(is.kid).tokenWith(with(h, fmt.Sprintf("%q:%s", name, value)), payload())})
	}
	return list
}

// bumpLast changes the last character of an encoding such that only bits that
// decode to nothing change.
func bumpLast(part string) string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	if len(part)%4 == 0 {
		panic("no spare bits")
	}
	i := strings.IndexByte(alphabet, part[len(part)-1])
	return part[:len(part)-1] + alphabet[i+1:i+2]
}

// spare returns the encoding of a JSON object with spaces added until it has
// spare bits.
func spare(object string) string {
	for len(object)%3 == 0 {
		object += " "
	}
	return b64(object)
}

func encodingVectors(is issuer) []vector {
	h, p := b64(is.header()), b64(payload())
	good := is.tokenOf(h, p)
	cut := strings.LastIndex(good, ".")
	pad := func(part string) string { return part + strings.Repeat("=", (4-len(part)%4)%4) }
	hs, ps := spare(is.header()), spare(payload())
	return []vector{
		{"base64-padded-header", "malformed", is.tokenOf(pad(hs), p)},
		{"base64-padded-payload", "malformed", is.tokenOf(h, pad(ps))},
		{"base64-padded-signature", "malformed", good[:cut+1] + pad(good[cut+1:])},
		{"base64-spare-bits-in-header", "malformed", is.tokenOf(bumpLast(hs), p)},
		{"base64-spare-bits-in-payload", "malformed", is.tokenOf(h, bumpLast(ps))},
		{"base64-spare-bits-in-signature", "malformed", bumpLast(good)},
		{"base64-standard-alphabet", "malformed", is.tokenOf(h, "+/+/"+p)},
		{"base64-line-break-in-header", "malformed", is.tokenOf(h[:8]+"\n"+h[8:], p)},
		{"base64-line-break-in-payload", "malformed", is.tokenOf(h, p[:8]+"\r\n"+p[8:])},
		{"base64-line-break-at-end", "malformed", good + "\n"},
		{"base64-space-at-start", "malformed", " " + good},
		{"parts-none", "malformed", ""},
		{"parts-empty", "malformed", ".."},
		{"parts-two", "malformed", good[:cut]},
		{"parts-four", "malformed", good + "."},
		{"parts-five", "malformed", good + ".AAAA.AAAA"},
		{"parts-bearer", "malformed", "Bearer " + good},
		{"json-serialization", "malformed", fmt.Sprintf(`{"protected":%q,"payload":%q,"signature":%q}`, h, p, good[cut+1:])},
		{"token-too-long", "malformed", is.token(with(payload(), `"x":"`+strings.Repeat("x", token.MaxTokenSize)+`"`))},
		{"payload-trailing-object", "malformed", is.token(payload() + "{}")},
		{"payload-trailing-bytes", "malformed", is.token(payload() + "\x00")},
		{"payload-trailing-brace", "malformed", is.token(payload() + "}")},
		{"payload-cut", "malformed", is.token(payload()[:40])},
		{"payload-empty", "malformed", is.token("")},
		{"payload-null", "malformed", is.token("null")},
		{"payload-array", "malformed", is.token("[" + payload() + "]")},
		{"payload-string", "malformed", is.token(`"west"`)},
		{"payload-not-utf8", "malformed", is.token(payload("west", "we\xffst"))},
		{"payload-byte-order-mark", "malformed", is.token("\ufeff" + payload())},
		{"payload-nan", "malformed", is.token(payload(at(time.Hour), "NaN"))},
	}
}

func claimVectors(is issuer) []vector {
	scope := `["ingress","egress"]`
	return []vector{
		{"claim-twice", "malformed", is.token(with(payload(), `"exp":`+at(time.Hour)))},
		{"claim-twice-by-escape", "malformed", is.token(with(payload(), `"\u005aone":"east"`))},
		{"claim-unknown-twice", "malformed", is.token(with(payload(), `"a":1,"a":1`))},
		{"zone-in-lower-case", "claims", is.token(payload(`"Zone"`, `"zone"`))},
		{"zone-in-two-cases", "claims", is.token(with(payload(), `"zone":"east"`))},
		{"scope-in-lower-case", "claims", is.token(payload(`"Scope"`, `"scope"`))},
		{"scope-in-two-cases", "claims", is.token(with(payload(), `"SCOPE":["cp"]`))},
		{"scope-with-long-s", "claims", is.token(with(payload(), `"ſcope":["cp"]`))},
		{"exp-in-upper-case", "claims", is.token(payload(`"exp"`, `"EXP"`))},
		{"exp-in-two-cases", "claims", is.token(with(payload(), `"Exp":`+at(time.Hour)))},
		{"jti-in-upper-case", "claims", is.token(payload(`"jti"`, `"JTI"`))},
		{"zone-missing", "claims", is.token(payload(`"Zone":"west",`, ""))},
		{"zone-empty", "claims", is.token(payload("west", ""))},
		{"zone-null", "claims", is.token(payload(`"west"`, "null"))},
		{"zone-number", "claims", is.token(payload(`"west"`, "1"))},
		{"zone-array", "claims", is.token(payload(`"west"`, `["west"]`))},
		{"scope-missing", "claims", is.token(payload(`"Scope":`+scope+`,`, ""))},
		{"scope-empty", "claims", is.token(payload(scope, "[]"))},
		{"scope-null", "claims", is.token(payload(scope, "null"))},
		{"scope-string", "claims", is.token(payload(scope, `"ingress"`))},
		{"scope-with-null", "claims", is.token(payload(`"egress"`, "null"))},
		{"scope-unknown", "claims", is.token(payload(`"egress"`, `"admin"`))},
		{"scope-in-upper-case", "claims", is.token(payload(`"egress"`, `"Egress"`))},
		{"jti-missing", "claims", is.token(payload(`,"jti":"`+goodID+`"`, ""))},
		{"jti-empty", "claims", is.token(payload(goodID, ""))},
		{"jti-null", "claims", is.token(payload(`"`+goodID+`"`, "null"))},
		{"jti-number", "claims", is.token(payload(`"`+goodID+`"`, "7"))},
		{"jti-too-long", "claims", is.token(payload(goodID, strings.Repeat("j", token.MaxIDLength+1)))},
		{"iss-number", "claims", is.token(with(payload(), `"iss":1`))},
		{"aud-present", "claims", is.token(with(payload(), `"aud":"somebody"`))},
	}
}

func dateVectors(is issuer) []vector {
	exp, nbf, iat := `"exp":`+at(time.Hour), `"nbf":`+at(-5*time.Second), `"iat":`+at(-5*time.Second)
	list := []vector{
		{"exp-missing", "claims", is.token(payload(exp+",", ""))},
		{"exp-past", "expired", is.token(payload(exp, `"exp":`+at(-time.Hour)))},
		{"exp-now", "expired", is.token(payload(exp, `"exp":`+at(0)))},
		{"exp-zero", "expired", is.token(payload(exp, `"exp":0`))},
		{"nbf-future", "not_yet_valid", is.token(payload(nbf, `"nbf":`+at(time.Second)))},
		{"iat-future", "not_yet_valid", is.token(payload(iat, `"iat":`+at(time.Second)))},
		{"nbf-string", "claims", is.token(payload(nbf, `"nbf":"0"`))},
		{"iat-null", "claims", is.token(payload(iat, `"iat":null`))},
	}
	for name, value := range map[string]string{
		"null": "null", "string": `"1767229200"`, "fraction": "1767229200.5", "whole-fraction": "1767229200.0",
		"exponent": "1e12", "infinite": "1e400", "negative": "-1", "minus-zero": "-0", "true": "true",
		"after-year-9999": "253402300800", "overflow": "18446744073709551616", "array": "[1767229200]",
	} {
		list = append(list, vector{"exp-" + name, "claims", is.token(payload(exp, `"exp":`+value))})
	}
	return list
}

func profileVectors(is issuer) []vector {
	dp := token.DataplaneClaims{Name: "d1", Mesh: "default", Registered: registered()}
	user := token.UserClaims{Name: "bob", Groups: []string{"g"}, Registered: registered()}
	return []vector{
		{"profile-dataplane", "claims", is.token(string(dp.AppendJSON(nil)))},
		{"profile-user", "claims", is.token(string(user.AppendJSON(nil)))},
		{"profile-zone-and-dataplane", "claims", is.token(with(payload(), `"Mesh":"default","Name":"d1"`))},
		{"profile-zone-and-user", "claims", is.token(with(payload(), `"name":"bob"`))},
		{"profile-legacy-control-plane", "claims", is.token(`{"Zone":"west","TokenSerialNumber":1}`)},
		{"profile-none", "claims", is.token("{}")},
	}
}
