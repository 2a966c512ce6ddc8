package service_test

import (
	"crypto"
	"fmt"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/zonemint/zonemint/proto/zonemint/v1"
	"github.com/zonemint/zonemint/signer/signertest"
	"github.com/zonemint/zonemint/token"
)

// side is a keyset with the private half of the key that signs for it.
type side struct {
	name   string
	kind   token.Profile
	mesh   string
	key    crypto.Signer
	kid    string
	issued string // a token that the service issued
}

// sides are two keysets of each profile, of one server.
func sides(t *testing.T) (*server, []side) {
	t.Helper()
	w := newWorld(t)
	box := &keyBox{}
	w.backends["fake"] = signertest.NewFake(t, signertest.FakeOptions{Generate: box.generate})
	list := []side{
		{name: "zone", kind: token.ProfileZone}, {name: "zone/eu", kind: token.ProfileZone},
		{name: "user", kind: token.ProfileUser}, {name: "user/eu", kind: token.ProfileUser},
		{name: "dataplane/default", kind: token.ProfileDataplane, mesh: "default"},
		{name: "dataplane/shop", kind: token.ProfileDataplane, mesh: "shop"},
	}
	var keysets []*pb.Keyset
	for _, d := range list {
		keysets = append(keysets, &pb.Keyset{
			Name: d.name, Backend: "fake", Profile: pb.Profile(pb.Profile_value["PROFILE_"+strings.ToUpper(string(d.kind))]),
		})
	}
	s := w.start(t, w.config(), keysets...)
	for i := range list {
		d := &list[i]
		d.issued = must(s.ask(t, d.name, d.kind, d.mesh))
		_, kid, _ := strings.Cut(part(t, d.issued, 0), `"kid":"`)
		d.kid, _, _ = strings.Cut(kid, `"`)
		d.key = box.made[2*i] // the second is the successor's
	}
	return s, list
}

// ask asks for a token of a profile from a keyset.
func (s *server) ask(t *testing.T, keyset string, kind token.Profile, mesh string) (string, error) {
	t.Helper()
	c := s.as(s.admin).tokens
	switch kind {
	case token.ProfileZone:
		resp, err := c.IssueZoneToken(t.Context(), &pb.IssueZoneTokenRequest{Keyset: keyset, Zone: "name", ValidFor: hour()})
		return resp.GetToken(), err
	case token.ProfileUser:
		resp, err := c.IssueUserToken(t.Context(), &pb.IssueUserTokenRequest{Keyset: keyset, Name: "name", ValidFor: hour()})
		return resp.GetToken(), err
	default:
		resp, err := c.IssueDataplaneToken(t.Context(), &pb.IssueDataplaneTokenRequest{Keyset: keyset, Mesh: mesh, Name: "name", ValidFor: hour()})
		return resp.GetToken(), err
	}
}

// claimsOf are the claims that a token of a side has.
func claimsOf(d side) string {
	r := token.Registered{
		ID: "0192f0c5-0000-7000-8000-000000000000", ExpiresAt: time.Now().Add(time.Hour), NotBefore: time.Now().Add(-time.Minute),
	}
	switch d.kind {
	case token.ProfileZone:
		return string(token.ZoneClaims{Zone: "name", Scope: token.DefaultScopes(), Registered: r}.AppendJSON(nil))
	case token.ProfileUser:
		return string(token.UserClaims{Name: "name", Registered: r}.AppendJSON(nil))
	default:
		return string(token.DataplaneClaims{Name: "name", Mesh: d.mesh, Tags: map[string][]string{}, Registered: r}.AppendJSON(nil))
	}
}

// Every key, under every key ID, with the claims of every profile, at the verifier
// of every keyset: only what belongs together in all respects is good.
func TestNothingMixes(t *testing.T) {
	s, list := sides(t)
	tried, good := 0, 0
	for _, at := range list {
		for _, named := range list {
			for _, by := range list {
				for _, says := range list {
					raw := rs256(by.key, fmt.Sprintf(`{"alg":"RS256","kid":%q,"typ":"JWT"}`, named.kid), claimsOf(says))
					resp, err := s.as(s.admin).tokens.VerifyToken(t.Context(), &pb.VerifyTokenRequest{Token: raw, Keyset: at.name})
					if err != nil {
						t.Fatal(err)
					}
					// Two keysets for zone tokens, and two for users, say the same.
					want := at.kid == named.kid && at.kid == by.kid && at.kind == says.kind && at.mesh == says.mesh
					if resp.GetValid() != want {
						t.Errorf("at %s, key ID of %s, key of %s, claims of %s: valid %t (%s)", at.name, named.name, by.name, says.name, resp.GetValid(), resp.GetDetail())
					}
					tried++
					if want {
						good++
					}
				}
			}
		}
	}
	t.Logf("%d tokens, %d of them good", tried, good)
	if good != 2*2+2*2+2 {
		t.Errorf("%d were to be good, want 10", good)
	}
}

// No keyset issues tokens of another profile, or of another mesh.
func TestNoIssueAcrossProfiles(t *testing.T) {
	s, list := sides(t)
	for _, at := range list {
		for _, asked := range list {
			_, err := s.ask(t, at.name, asked.kind, asked.mesh)
			if want := at.kind == asked.kind && at.mesh == asked.mesh; (err == nil) != want {
				t.Errorf("a token of %s from %s: %v", asked.name, at.name, err)
			}
			if err != nil {
				wantCode(t, err, connect.CodeInvalidArgument)
			}
		}
	}
}

// Nor does one revoke, check or import what is another's.
func TestNoActsAcrossKeysets(t *testing.T) {
	s, list := sides(t)
	c := s.as(s.admin)
	for _, at := range list {
		for _, of := range list {
			if at.name == of.name {
				continue
			}
			_, err := c.revocations.RevokeToken(t.Context(), &pb.RevokeTokenRequest{Keyset: at.name, Token: of.issued})
			wantCode(t, err, connect.CodeInvalidArgument)
			_, jti, _ := strings.Cut(part(t, of.issued, 1), `"jti":"`)
			jti, _, _ = strings.Cut(jti, `"`)
			_, err = c.revocations.RevokeToken(t.Context(), &pb.RevokeTokenRequest{Keyset: at.name, Jti: jti})
			wantCode(t, err, connect.CodeInvalidArgument)
			resp := must(c.revocations.CheckRevocations(t.Context(), &pb.CheckRevocationsRequest{Keyset: at.name, Jtis: []string{jti}}))
			if got := resp.GetStates()[0]; got != pb.RevocationState_REVOCATION_STATE_UNKNOWN {
				t.Errorf("%s knows a token of %s: %s", at.name, of.name, got)
			}
			// Even with the proof that the private key is at hand.
			stolen := issuer{"RS256", of.key, "imported"}
			req := stolen.request()
			req.Keyset = at.name
			req.Challenge = must(c.keys.ImportPublicKey(t.Context(), req)).GetChallenge()
			req.ChallengeSignature, _ = stolen.sign(req.GetChallenge())
			_, err = c.keys.ImportPublicKey(t.Context(), req)
			wantCode(t, err, connect.CodeAlreadyExists)
		}
	}
}

// No JWK set has a key of another keyset's, or one that is not public.
func TestJWKSetsAreApart(t *testing.T) {
	s, list := sides(t)
	for _, at := range list {
		_, body := s.get(t, "/keysets/"+at.name+"/jwks.json")
		for _, of := range list {
			if has := strings.Contains(body, `"`+of.kid+`"`); has != (at.name == of.name) {
				t.Errorf("%s has a key of %s: %t", at.name, of.name, has)
			}
		}
		for _, secret := range []string{`"d"`, `"k"`, `"oct"`, `"p"`, "HS256"} {
			if strings.Contains(body, secret) {
				t.Errorf("the JWK set of %s has %s", at.name, secret)
			}
		}
	}
}

// CheckRevocations tells apart what is whose.
func TestCheckRevocations(t *testing.T) {
	s := newKumaServer(t)
	c := s.as(s.admin)
	var jtis []string
	for range 3 {
		resp := must(c.tokens.IssueZoneToken(t.Context(), &pb.IssueZoneTokenRequest{Zone: "west", ValidFor: hour()}))
		jtis = append(jtis, resp.GetJti())
	}
	for _, jti := range jtis[1:] {
		must(c.revocations.RevokeToken(t.Context(), &pb.RevokeTokenRequest{Jti: jti}))
	}
	must(c.revocations.LiftRevocation(t.Context(), &pb.LiftRevocationRequest{Keyset: "zone", Jti: jtis[2], Reason: "a test"}))
	must(c.revocations.RevokeToken(t.Context(), &pb.RevokeTokenRequest{
		Keyset: "zone", Jti: "somebody-elses", ExpiresAt: timestamppb.New(time.Now().Add(time.Hour)),
	}))
	asked := append(jtis, "somebody-elses", "unheard-of", strings.ToUpper(jtis[1]), "0192f0c5-0000-7000-8000-000000000000", "a,b c")
	resp := must(c.revocations.CheckRevocations(t.Context(), &pb.CheckRevocationsRequest{Keyset: "zone", Jtis: asked}))
	want := "[REVOCATION_STATE_ISSUED REVOCATION_STATE_REVOKED REVOCATION_STATE_LIFTED REVOCATION_STATE_REVOKED " +
		strings.TrimSpace(strings.Repeat("REVOCATION_STATE_UNKNOWN ", 4)) + "]"
	if got := fmt.Sprint(resp.GetStates()); got != want {
		t.Errorf("%s, want %s", got, want)
	}
	_, err := c.revocations.CheckRevocations(t.Context(), &pb.CheckRevocationsRequest{Keyset: "zone", Jtis: []string{"a\x00b"}})
	wantCode(t, err, connect.CodeInvalidArgument)
}
