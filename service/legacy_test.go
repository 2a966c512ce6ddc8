package service_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/golang-jwt/jwt/v5"

	pb "github.com/zonemint/zonemint/proto/zonemint/v1"
	"github.com/zonemint/zonemint/service"
	"github.com/zonemint/zonemint/store"
)

const (
	controlPlane = pb.LegacyKind_LEGACY_KIND_CONTROL_PLANE
	zoneIngress  = pb.LegacyKind_LEGACY_KIND_ZONE_INGRESS
)

// withLegacy is the configuration of a replica with both kinds of old tokens.
func (w *world) withLegacy() service.Config {
	cfg := w.config()
	cfg.Legacy = service.Legacy{ControlPlane: true, ZoneIngress: true, AEAD: w.key.AEAD()}
	return cfg
}

// old is a replica with both kinds of old tokens, a key for each, and the keyset zone.
func old(t testing.TB) *server {
	t.Helper()
	w := newWorld(t)
	s := w.start(t, w.withLegacy(), zoneKeyset())
	for _, kind := range []pb.LegacyKind{controlPlane, zoneIngress} {
		if _, err := s.as(s.admin).legacy.CreateLegacyKey(t.Context(), &pb.CreateLegacyKeyRequest{Kind: kind}); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// issueOld issues a token of a kind for a zone and returns it with its serial.
func (c wire) issueOld(ctx context.Context, kind pb.LegacyKind, zone string) (string, int32, error) {
	if kind == zoneIngress {
		resp, err := c.tokens.IssueZoneIngressToken(ctx, &pb.IssueZoneIngressTokenRequest{Zone: zone})
		return resp.GetToken(), resp.GetSerial(), err
	}
	resp, err := c.tokens.IssueControlPlaneToken(ctx, &pb.IssueControlPlaneTokenRequest{Zone: zone})
	return resp.GetToken(), resp.GetSerial(), err
}

// oldVerifies wants an old token to be good for zone west, or bad for a reason.
func (s *server) oldVerifies(t testing.TB, kind pb.LegacyKind, token, reason string) {
	t.Helper()
	resp, err := s.as(s.admin).legacy.VerifyLegacyToken(t.Context(), &pb.VerifyLegacyTokenRequest{Kind: kind, Token: token})
	if err != nil || resp.GetValid() != (reason == "") || resp.GetReason() != reason || resp.GetValid() != (resp.GetZone() == "west") || resp.GetValid() != (resp.GetSerial() > 0) {
		t.Errorf("the %s token is %v, %v; want %q", kind, resp, err, reason)
	}
}

// Each kind is off by itself, and every call about one that is off says so.
func TestLegacyIsOff(t *testing.T) {
	for name, on := range map[string]func(*service.Legacy){
		"all":           func(*service.Legacy) {},
		"control-plane": func(l *service.Legacy) { l.ZoneIngress = true },
		"zone-ingress":  func(l *service.Legacy) { l.ControlPlane = true },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			cfg := w.config()
			cfg.Legacy.AEAD = w.key.AEAD()
			on(&cfg.Legacy)
			s := w.start(t, cfg, zoneKeyset())
			c := s.as(s.admin)
			for _, kind := range []pb.LegacyKind{controlPlane, zoneIngress} {
				off := kind == controlPlane && !cfg.Legacy.ControlPlane || kind == zoneIngress && !cfg.Legacy.ZoneIngress
				for method, err := range c.everyLegacyCall(t, kind) {
					if said := err != nil && connect.CodeOf(err) == connect.CodeFailedPrecondition && strings.Contains(err.Error(), "legacy tokens are off; "); said != off {
						t.Errorf("%s of %s: %v; off: %t", method, kind, err, off)
					}
				}
			}
			want := 0
			if name != "all" {
				want = 1
			}
			if got := strings.Count(strings.Join(s.audited(t), " "), "legacy-key.create"); got != want {
				t.Errorf("%d keys were made, want %d", got, want)
			}
		})
	}
}

// everyLegacyCall makes every call of the legacy API once.
func (c wire) everyLegacyCall(t testing.TB, kind pb.LegacyKind) map[string]error {
	t.Helper()
	ctx, errs := t.Context(), map[string]error{}
	_, errs["CreateLegacyKey"] = c.legacy.CreateLegacyKey(ctx, &pb.CreateLegacyKeyRequest{Kind: kind})
	_, errs["ListLegacyKeys"] = c.legacy.ListLegacyKeys(ctx, &pb.ListLegacyKeysRequest{Kind: kind})
	_, _, errs["Issue"] = c.issueOld(ctx, kind, "west")
	_, errs["VerifyLegacyToken"] = c.legacy.VerifyLegacyToken(ctx, &pb.VerifyLegacyTokenRequest{Kind: kind, Token: "x"})
	_, errs["RotateLegacyKey"] = c.legacy.RotateLegacyKey(ctx, &pb.RotateLegacyKeyRequest{Kind: kind})
	_, errs["ExportLegacyKey"] = c.legacy.ExportLegacyKey(ctx, &pb.ExportLegacyKeyRequest{Kind: kind})
	_, errs["RemoveLegacyKey"] = c.legacy.RemoveLegacyKey(ctx, &pb.RemoveLegacyKeyRequest{Kind: kind, Serial: 1, Force: true})
	return errs
}

func TestLegacyNeedsEncryption(t *testing.T) {
	w := newWorld(t)
	cfg := w.config()
	cfg.Legacy.ZoneIngress = true
	if _, err := service.New(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "zone-ingress tokens are on") {
		t.Errorf("without an AEAD: %v", err)
	}
}

func TestLegacyIssue(t *testing.T) {
	s := old(t)
	issued := 0
	for _, c := range s.wires(s.admin) {
		for kind, want := range map[pb.LegacyKind]string{controlPlane: `{"Zone":"west","TokenSerialNumber":1}`, zoneIngress: `{"Zone":"west"}`} {
			raw, serial, err := c.issueOld(t.Context(), kind, "west")
			if err != nil || serial != 1 || part(t, raw, 0) != `{"alg":"HS256","typ":"JWT"}` || part(t, raw, 1) != want {
				t.Errorf("%s: %s, serial %d, %v", c.name, kind, serial, err)
			}
			issued++
			s.oldVerifies(t, kind, raw, "")
			exported := must(c.legacy.ExportLegacyKey(t.Context(), &pb.ExportLegacyKeyRequest{Kind: kind}))
			theirs, err := jwt.Parse(raw, func(*jwt.Token) (any, error) { return exported.GetSecret(), nil }, jwt.WithValidMethods([]string{"HS256"}))
			if err != nil || !theirs.Valid {
				t.Errorf("%s: with the exported secret others say %v", c.name, err)
			}
			if text := base64.StdEncoding.EncodeToString(exported.GetSecret()); strings.Contains(s.log.String(), text[:40]) || strings.Contains(s.log.String(), part(t, raw, 1)+".") {
				t.Error("the log has a secret")
			}
		}
	}
	events := must(s.as(s.admin).audit.ListAuditEvents(t.Context(), &pb.ListAuditEventsRequest{ActionPrefix: "legacy.issue", PageSize: 100})).GetEvents()
	if len(events) != issued {
		t.Errorf("%d tokens were issued, the audit has %d", issued, len(events))
	}
	for _, e := range events {
		kind, _, _ := strings.Cut(e.GetTarget(), "/")
		if e.GetTarget() != kind+"/1" || e.GetDetail() != fmt.Sprintf(`{"kind":%q,"serial":1,"zone":"west"}`, kind) || e.GetRequestId() == "" || !strings.HasPrefix(e.GetActor(), "api-token/") {
			t.Errorf("the audit says %v", e)
		}
	}
	if n := s.count(t, "ledger"); n != 0 {
		t.Errorf("the ledger has %d rows", n)
	}
	for _, want := range []string{`zonemint_legacy_issued_total{kind="control-plane"} 5`, `zonemint_legacy_issued_total{kind="zone-ingress"} 5`} {
		if text := s.private("/metrics").Body.String(); !strings.Contains(text, want) {
			t.Errorf("the metrics lack %s", want)
		}
	}
	for _, bad := range []string{"", "West", "west_1", "-west", strings.Repeat("w", 64)} {
		for _, kind := range []pb.LegacyKind{controlPlane, zoneIngress} {
			_, _, err := s.as(s.admin).issueOld(t.Context(), kind, bad)
			wantCode(t, err, connect.CodeInvalidArgument)
		}
	}
	s.sound(t)
}

func (w *world) count(t testing.TB, from string) (n int) {
	t.Helper()
	if err := w.look(t).QueryRowContext(t.Context(), "SELECT count(*) FROM "+from).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// A rotation is on every replica at once, and so is a removal.
func TestLegacyRotation(t *testing.T) {
	s := old(t)
	cfg := s.withLegacy()
	cfg.Name = "replica-2"
	other := s.start(t, cfg)
	c := s.as(s.admin).legacy
	for _, kind := range []pb.LegacyKind{controlPlane, zoneIngress} {
		first, _, err := other.as(s.admin).issueOld(t.Context(), kind, "west")
		if err != nil {
			t.Fatal(err)
		}
		rotated := must(c.RotateLegacyKey(t.Context(), &pb.RotateLegacyKeyRequest{Kind: kind, FromSerial: 1, Reason: "it is time"}))
		if rotated.GetKey().GetSerial() != 2 || rotated.GetKey().GetState() != "active" || len(rotated.GetKeys()) != 2 || rotated.GetKeys()[0].GetState() != "retiring" {
			t.Errorf("rotated: %v", rotated)
		}
		_, err = c.RotateLegacyKey(t.Context(), &pb.RotateLegacyKeyRequest{Kind: kind, FromSerial: 1})
		wantCode(t, err, connect.CodeFailedPrecondition) // asked again, it does not rotate twice
		_, err = c.CreateLegacyKey(t.Context(), &pb.CreateLegacyKeyRequest{Kind: kind})
		wantCode(t, err, connect.CodeFailedPrecondition)

		second, serial, err := other.as(s.admin).issueOld(t.Context(), kind, "west")
		if err != nil || serial != 2 {
			t.Errorf("serial %d issues, %v", serial, err)
		}
		other.oldVerifies(t, kind, first, "")
		other.oldVerifies(t, kind, second, "")

		for range 2 { // the second time it is removed already
			removed := must(c.RemoveLegacyKey(t.Context(), &pb.RemoveLegacyKeyRequest{Kind: kind, Serial: 1, Reason: "all have moved"}))
			if removed.GetKey().GetState() != "removed" || removed.GetKey().GetRemovedAt() == nil {
				t.Errorf("removed: %v", removed)
			}
		}
		gone := map[pb.LegacyKind]string{controlPlane: "unknown_key", zoneIngress: "signature"}[kind]
		other.oldVerifies(t, kind, first, gone)
		other.oldVerifies(t, kind, second, "")

		// The active key, and so the last one, goes by force.
		_, err = c.RemoveLegacyKey(t.Context(), &pb.RemoveLegacyKeyRequest{Kind: kind, Serial: 2})
		wantCode(t, err, connect.CodeFailedPrecondition)
		must(c.RemoveLegacyKey(t.Context(), &pb.RemoveLegacyKeyRequest{Kind: kind, Serial: 2, Force: true}))
		other.oldVerifies(t, kind, second, "unknown_key")
		_, _, err = other.as(s.admin).issueOld(t.Context(), kind, "west")
		wantCode(t, err, connect.CodeFailedPrecondition)
		_, err = c.RotateLegacyKey(t.Context(), &pb.RotateLegacyKeyRequest{Kind: kind})
		wantCode(t, err, connect.CodeFailedPrecondition)
		for _, serial := range []int32{0, 1, 2} {
			_, err = c.ExportLegacyKey(t.Context(), &pb.ExportLegacyKeyRequest{Kind: kind, Serial: serial})
			wantCode(t, err, connect.CodeFailedPrecondition)
		}
		_, err = c.RemoveLegacyKey(t.Context(), &pb.RemoveLegacyKeyRequest{Kind: kind, Serial: 3, Force: true})
		wantCode(t, err, connect.CodeNotFound)
		if n := s.count(t, "legacy_keys WHERE length(secret) > 0 AND kind = '"+strings.ToLower(strings.ReplaceAll(kind.String()[12:], "_", "-"))+"'"); n != 0 {
			t.Errorf("%d secrets are left", n)
		}
		third := must(c.CreateLegacyKey(t.Context(), &pb.CreateLegacyKeyRequest{Kind: kind}))
		if third.GetKey().GetSerial() != 3 || third.GetKey().GetState() != "active" {
			t.Errorf("after all were removed a new one is %v", third)
		}
	}
	want := []string{"legacy-key.create", "legacy.issue", "legacy-key.rotate", "legacy.issue", "legacy-key.remove", "legacy-key.remove", "legacy-key.create"}
	got := slices.DeleteFunc(s.audited(t), func(a string) bool { return !strings.HasPrefix(a, "legacy") })
	if !slices.Equal(got[2:], slices.Concat(want[1:], want[1:])) {
		t.Errorf("the audit says %q", got)
	}
}

// The last key that verifies goes by force too, if none issues.
func TestLastLegacyKey(t *testing.T) {
	s := old(t)
	c := s.as(s.admin).legacy
	must(c.RotateLegacyKey(t.Context(), &pb.RotateLegacyKeyRequest{Kind: controlPlane}))
	must(c.RemoveLegacyKey(t.Context(), &pb.RemoveLegacyKeyRequest{Kind: controlPlane, Serial: 2, Force: true}))
	_, err := c.RemoveLegacyKey(t.Context(), &pb.RemoveLegacyKeyRequest{Kind: controlPlane, Serial: 1})
	if wantCode(t, err, connect.CodeFailedPrecondition); err != nil && !strings.Contains(err.Error(), "the last that verifies") {
		t.Error(err)
	}
}

// golden returns a file of the package that makes the tokens.
func oldGolden(t testing.TB, name string) string {
	t.Helper()
	return strings.TrimSpace(string(must(os.ReadFile(filepath.Join("legacy/testdata", name)))))
}

func oldSecret(t testing.TB) []byte {
	t.Helper()
	return must(base64.StdEncoding.DecodeString(strings.ReplaceAll(oldGolden(t, "secret.base64"), "\n", "")))
}

func TestLegacyImport(t *testing.T) {
	w := newWorld(t)
	s := w.start(t, w.withLegacy(), zoneKeyset())
	c, secret := s.as(s.admin).legacy, oldSecret(t)
	s.oldVerifies(t, controlPlane, oldGolden(t, "control-plane.token"), "unknown_key")

	// A newer key of the control plane first, then the one before it.
	newer := must(c.CreateLegacyKey(t.Context(), &pb.CreateLegacyKeyRequest{Kind: controlPlane, Secret: bytes.Repeat([]byte("newer"), 9), Serial: 2}))
	older := must(c.CreateLegacyKey(t.Context(), &pb.CreateLegacyKeyRequest{Kind: controlPlane, Secret: secret, Serial: 1}))
	if k := newer.GetKey(); k.GetState() != "active" || !k.GetImported() || k.GetSecretName() != "control-plane-signing-key-0002" {
		t.Errorf("newer: %v", k)
	}
	if k := older.GetKey(); k.GetState() != "retiring" || k.GetSerial() != 1 || k.GetRetiredAt() == nil {
		t.Errorf("older: %v", k)
	}
	s.oldVerifies(t, controlPlane, oldGolden(t, "control-plane.token"), "")
	s.oldVerifies(t, controlPlane, oldGolden(t, "zone-ingress.token"), "claims")
	exported := must(c.ExportLegacyKey(t.Context(), &pb.ExportLegacyKeyRequest{Kind: controlPlane, Serial: 1}))
	if !bytes.Equal(exported.GetSecret(), secret) {
		t.Error("another secret is exported than was imported")
	}

	for name, req := range map[string]*pb.CreateLegacyKeyRequest{
		"the same secret again":           {Kind: controlPlane, Secret: secret, Serial: 7},
		"the same secret, another kind":   {Kind: zoneIngress, Secret: secret},
		"the same serial again":           {Kind: controlPlane, Secret: bytes.Repeat([]byte("third"), 9), Serial: 1},
		"a secret that is short":          {Kind: controlPlane, Secret: []byte("short"), Serial: 7},
		"a secret that is too long":       {Kind: controlPlane, Secret: bytes.Repeat([]byte("long"), 3000), Serial: 7},
		"a serial that is no serial":      {Kind: controlPlane, Secret: bytes.Repeat([]byte("third"), 9), Serial: -1},
		"a serial that has no name":       {Kind: controlPlane, Secret: bytes.Repeat([]byte("third"), 9), Serial: 10000},
		"no kind":                         {Secret: bytes.Repeat([]byte("third"), 9)},
		"a kind that there is not":        {Kind: 3, Secret: bytes.Repeat([]byte("third"), 9)},
		"the hash of a secret that is":    {Kind: zoneIngress, Secret: sum(secret)},
		"a key made beside an active one": {Kind: controlPlane},
	} {
		_, err := c.CreateLegacyKey(t.Context(), req)
		if code := connect.CodeOf(err); err == nil || code != connect.CodeInvalidArgument && code != connect.CodeFailedPrecondition {
			t.Errorf("%s: %v", name, err)
		}
	}

	// What was removed does not come back.
	must(c.RemoveLegacyKey(t.Context(), &pb.RemoveLegacyKeyRequest{Kind: controlPlane, Serial: 1}))
	for _, serial := range []int32{0, 1, 9} {
		if _, err := c.CreateLegacyKey(t.Context(), &pb.CreateLegacyKeyRequest{Kind: controlPlane, Secret: secret, Serial: serial}); err == nil {
			t.Errorf("the removed key came back as serial %d", serial)
		}
	}
	s.oldVerifies(t, controlPlane, oldGolden(t, "control-plane.token"), "unknown_key")
	rotated := must(c.RotateLegacyKey(t.Context(), &pb.RotateLegacyKeyRequest{Kind: controlPlane, Secret: bytes.Repeat([]byte("third"), 9), Serial: 9}))
	if k := rotated.GetKey(); k.GetSerial() != 9 || !k.GetImported() || k.GetState() != "active" {
		t.Errorf("rotated to %v", k)
	}
}

// Bounds are those of zone tokens, and no bound allows what never expires.
func TestLegacyCallers(t *testing.T) {
	s := old(t)
	type want struct{ issues, lists, verifies, manages bool }
	for name, tc := range map[string]struct {
		token store.APIToken
		want  want
	}{
		"admin":                 {store.APIToken{Roles: []string{"admin"}}, want{true, true, true, true}},
		"issuer":                {store.APIToken{Roles: []string{"issuer"}}, want{issues: true, verifies: true}},
		"issuer for the zone":   {store.APIToken{Roles: []string{"issuer"}, Zones: []string{"west"}}, want{issues: true, verifies: true}},
		"issuer for another":    {store.APIToken{Roles: []string{"issuer"}, Zones: []string{"east"}}, want{verifies: true}},
		"issuer for cp":         {store.APIToken{Roles: []string{"issuer"}, Scopes: []string{"cp"}}, want{issues: true, verifies: true}},
		"issuer for ingress":    {store.APIToken{Roles: []string{"issuer"}, Scopes: []string{"ingress"}}, want{verifies: true}},
		"issuer for a while":    {store.APIToken{Roles: []string{"issuer"}, MaxValidFor: time.Hour}, want{verifies: true}},
		"issuer for dataplanes": {store.APIToken{Roles: []string{"issuer"}, Dataplanes: []string{"web"}}, want{verifies: true}},
		"issuer of a keyset":    {store.APIToken{Roles: []string{"issuer"}, Keysets: []string{"zone"}}, want{}},
		"admin of a zone":       {store.APIToken{Roles: []string{"admin"}, Zones: []string{"west"}}, want{issues: true, lists: true, verifies: true}},
		"admin of a keyset":     {store.APIToken{Roles: []string{"admin"}, Keysets: []string{"zone"}}, want{}},
		"key-operator":          {store.APIToken{Roles: []string{"key-operator"}}, want{lists: true, verifies: true}},
		"auditor":               {store.APIToken{Roles: []string{"auditor"}}, want{lists: true, verifies: true}},
		"verifier":              {store.APIToken{Roles: []string{"verifier"}}, want{verifies: true}},
		"revoker":               {store.APIToken{Roles: []string{"revoker"}}, want{verifies: true}},
	} {
		tc.token.Name = name
		c, ctx := s.as(s.apiToken(t, tc.token)), t.Context()
		may := func(what string, err error, want bool) {
			t.Helper()
			if (err == nil) != want || err != nil && connect.CodeOf(err) != connect.CodePermissionDenied {
				t.Errorf("%s, %s: %v; want %t", name, what, err, want)
			}
		}
		_, _, err := c.issueOld(ctx, controlPlane, "west")
		may("issue", err, tc.want.issues)
		_, err = c.legacy.ListLegacyKeys(ctx, &pb.ListLegacyKeysRequest{Kind: controlPlane})
		may("list", err, tc.want.lists)
		_, err = c.legacy.VerifyLegacyToken(ctx, &pb.VerifyLegacyTokenRequest{Kind: controlPlane, Token: "x"})
		may("verify", err, tc.want.verifies)
		_, err = c.legacy.ExportLegacyKey(ctx, &pb.ExportLegacyKeyRequest{Kind: controlPlane})
		may("export", err, tc.want.manages)
		_, err = c.legacy.RotateLegacyKey(ctx, &pb.RotateLegacyKeyRequest{Kind: zoneIngress})
		may("rotate", err, tc.want.manages)
		_, err = c.legacy.RemoveLegacyKey(ctx, &pb.RemoveLegacyKeyRequest{Kind: zoneIngress, Serial: 1})
		may("remove", err, tc.want.manages)
		_, err = c.legacy.CreateLegacyKey(ctx, &pb.CreateLegacyKeyRequest{Kind: zoneIngress, Secret: []byte(strings.Repeat(name, 32)[:32])})
		may("create", err, tc.want.manages)
	}
}

// Nothing leaves that is not in the audit: a revoked caller, a database that is
// down, and a commit whose outcome nobody knows.
func TestLegacyTokensAreOnRecord(t *testing.T) {
	s := old(t)
	caller := s.apiToken(t, store.APIToken{Name: "ci", Roles: []string{"issuer"}})
	if _, _, err := s.as(caller).issueOld(t.Context(), controlPlane, "west"); err != nil {
		t.Fatal(err)
	}
	s.engine.budget.Store(1)
	raw, _, err := s.as(caller).issueOld(t.Context(), controlPlane, "west")
	if wantCode(t, err, connect.CodeUnavailable); raw != "" {
		t.Error("a token left without a record")
	}
	s.engine.reconnect()
	if n := s.count(t, "audit_events WHERE action = 'legacy.issue'"); n != 1 {
		t.Errorf("the audit has %d tokens, want 1", n)
	}
}

// Keys whose rows were tampered with neither issue nor verify, and do not go unseen.
func TestTamperedLegacyKeys(t *testing.T) {
	s := old(t)
	c := s.as(s.admin)
	first, _, err := c.issueOld(t.Context(), controlPlane, "west")
	if err != nil {
		t.Fatal(err)
	}
	must(c.legacy.RotateLegacyKey(t.Context(), &pb.RotateLegacyKeyRequest{Kind: controlPlane}))
	second, _, err := c.issueOld(t.Context(), controlPlane, "west")
	if err != nil {
		t.Fatal(err)
	}
	// The secret of the old key, under the new one's name.
	must(s.look(t).ExecContext(t.Context(), `UPDATE legacy_keys SET
		secret = (SELECT secret FROM legacy_keys WHERE kind = 'control-plane' AND serial = 1) WHERE kind = 'control-plane' AND serial = 2`))
	s.oldVerifies(t, controlPlane, second, "unknown_key")
	s.oldVerifies(t, controlPlane, first, "")
	_, _, err = c.issueOld(t.Context(), controlPlane, "west")
	wantCode(t, err, connect.CodeInternal)
	_, err = c.legacy.ExportLegacyKey(t.Context(), &pb.ExportLegacyKeyRequest{Kind: controlPlane})
	wantCode(t, err, connect.CodeInternal)
	_, err = c.legacy.CreateLegacyKey(t.Context(), &pb.CreateLegacyKeyRequest{Kind: controlPlane})
	wantCode(t, err, connect.CodeInternal)
	if keys := must(c.legacy.ListLegacyKeys(t.Context(), &pb.ListLegacyKeysRequest{Kind: controlPlane})).GetKeys(); len(keys) != 1 {
		t.Errorf("listed are %v", keys)
	}
	if _, _, err := c.issueOld(t.Context(), zoneIngress, "west"); err != nil {
		t.Errorf("the other kind: %v", err)
	}
	if !strings.Contains(s.log.String(), "legacy keys left out") || !strings.Contains(s.log.String(), "legacy key control-plane/2") {
		t.Error("the log does not say which row was left out")
	}
}

// lossy is a database whose connection breaks after commits.
type lossy struct {
	store.Engine
	armed atomic.Bool
}

func (l *lossy) Update(ctx context.Context, fn func(store.Tx) error) error {
	err := l.Engine.Update(ctx, fn)
	if err == nil && l.armed.Load() {
		return fmt.Errorf("%w: %s", store.ErrUnknownOutcome, canary)
	}
	return err
}

// A token whose record may or may not be there does not leave, and nor does a secret.
func TestLegacyTokensOfUnknownOutcome(t *testing.T) {
	w := newWorld(t)
	l := &lossy{Engine: w.engine.Engine}
	w.engine.Engine = l
	s := w.start(t, w.withLegacy(), zoneKeyset())
	c := s.as(s.admin)
	must(c.legacy.CreateLegacyKey(t.Context(), &pb.CreateLegacyKeyRequest{Kind: controlPlane}))
	l.armed.Store(true)
	raw, serial, err := c.issueOld(t.Context(), controlPlane, "west")
	if wantCode(t, err, connect.CodeUnavailable); raw != "" || serial != 0 {
		t.Error("a token left")
	}
	exported, err := c.legacy.ExportLegacyKey(t.Context(), &pb.ExportLegacyKeyRequest{Kind: controlPlane})
	if wantCode(t, err, connect.CodeUnavailable); len(exported.GetSecret()) > 0 {
		t.Error("a secret left")
	}
	l.armed.Store(false)
	if strings.Contains(s.private("/metrics").Body.String(), "zonemint_legacy_issued_total{") {
		t.Error("the token is counted")
	}
}
