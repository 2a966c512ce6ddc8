package integration

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/zonemint/zonemint/token"
)

// TestSixWays asks for a zone token in every way there is, and wants a control
// plane and openssl to accept each.
func TestSixWays(t *testing.T) {
	need(t, "openssl")
	onBothStores(t, func(t *testing.T, db database) {
		in := installAdmin(t, db, settings{keysets: []keyset{{"zone", "zone", "RS256"}}})
		s := in.start(t)
		set := s.jwks(t, "zone").body
		keys := s.keys(t, "zone")
		var tokens []issued
		for name, issue := range map[string]func(*testing.T, *installation, *server, string) issued{
			"connect": byConnect, "grpc": byGRPC, "json": byCurl, "kuma": byKumaREST, "cli": byCLI,
		} {
			t.Run(name, func(t *testing.T) {
				k := issue(t, in, s, "zone-"+name)
				wantValid(t, keys, k)
				header, err := token.UnverifiedHeader(k.token)
				if err != nil {
					t.Fatal(err)
				}
				wantOpenSSL(t, pemFromJWKS(t, set, header.KeyID), k.token)
				k.jti = jtiOf(t, keys, k)
				tokens = append(tokens, k)
			})
		}
		s.stop(t)
		if rows := db.wantRows(t, tokens); rows != len(tokens) {
			t.Errorf("the ledger has %d rows for %d tokens", rows, len(tokens))
		}
		in.verifyLedger(t)
	})
	t.Run("offline", issueOffline)
}

func byConnect(t *testing.T, in *installation, s *server, zone string) issued {
	return s.overConnect(t, in.admin).mustIssue(t, zone)
}

func byGRPC(t *testing.T, in *installation, s *server, zone string) issued {
	return s.overGRPC(t, in.admin).mustIssue(t, zone)
}

// byCurl speaks Connect as a person with a shell does.
func byCurl(t *testing.T, in *installation, s *server, zone string) issued {
	need(t, "curl")
	answer := curl(t, in, s, "/zonemint.v1.TokenService/IssueZoneToken", `{"zone": "`+zone+`", "validFor": "3600s"}`)
	made := decode[struct{ Token, Jti string }](t, answer)
	return issued{zone: zone, token: made.Token, jti: made.Jti}
}

// byKumaREST does what kumactl does.
func byKumaREST(t *testing.T, in *installation, s *server, zone string) issued {
	need(t, "curl")
	answer := curl(t, in, s, "/tokens/zone", `{"zone": "`+zone+`", "scope": ["ingress", "egress"], "validFor": "1h0m0s"}`)
	return issued{zone: zone, token: answer}
}

func curl(t *testing.T, in *installation, s *server, path, body string) string {
	t.Helper()
	return run(t, "curl", "--silent", "--show-error", "--fail-with-body", "--max-time", "10", "--noproxy", "*",
		"--header", "Authorization: Bearer "+in.admin, "--header", "Content-Type: application/json",
		"--data", body, "http://"+s.public+path).must(t)
}

func byCLI(t *testing.T, in *installation, s *server, zone string) issued {
	t.Helper()
	env := []string{"ZONEMINT_ADDR=http://" + s.public, "ZONEMINT_TOKEN_FILE=" + in.adminToken}
	o := runWith(t, env, os.Getenv(binaryVariable), "generate", "zone-token", "--zone", zone, "--valid-for", "1h")
	return issued{zone: zone, token: strings.TrimSpace(o.must(t))}
}

// issueOffline has no server: the key comes from a file, and control planes get
// its public half by hand.
func issueOffline(t *testing.T) {
	const kid = "offline-1"
	key := filepath.Join(t.TempDir(), "key.pem")
	private := zonemint(t, "generate", "signing-key", "--format", "pem").must(t)
	if err := os.WriteFile(key, []byte(private), 0o600); err != nil {
		t.Fatal(err)
	}
	public := []byte(zonemint(t, "generate", "public-key", "--signing-key-path", key).must(t))
	text := zonemint(t, "generate", "zone-token", "--zone", "east", "--valid-for", "1h",
		"--signing-key-path", key, "--kid", kid).must(t)
	k := issued{zone: "east", token: strings.TrimSpace(text)}

	parsed, err := token.ParseKey(kid, "RS256", public)
	if err != nil {
		t.Fatal(err)
	}
	keys, err := token.NewKeySet(parsed)
	if err != nil {
		t.Fatal(err)
	}
	wantValid(t, keys, k)
	wantOpenSSL(t, public, k.token)
}

// jtiOf returns the jti in a good token.
func jtiOf(t *testing.T, keys token.KeySource, k issued) string {
	t.Helper()
	v, err := token.NewVerifier[token.ZoneClaims](keys, token.Options{})
	if err != nil {
		t.Fatal(err)
	}
	good, err := v.Verify(t.Context(), k.token)
	if err != nil {
		t.Fatal(err)
	}
	return good.Claims.ID
}
