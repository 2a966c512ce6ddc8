package caller_test

import (
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	pb "github.com/zonemint/zonemint/proto/zonemint/v1"
	"github.com/zonemint/zonemint/service/caller"
)

// procedures returns every method of the API, by what its schema says.
func procedures(t *testing.T) []string {
	t.Helper()
	pkg := pb.File_zonemint_v1_token_proto.Package()
	var all []string
	protoregistry.GlobalFiles.RangeFilesByPackage(pkg, func(f protoreflect.FileDescriptor) bool {
		for i := range f.Services().Len() {
			s := f.Services().Get(i)
			for j := range s.Methods().Len() {
				all = append(all, "/"+string(s.FullName())+"/"+string(s.Methods().Get(j).Name()))
			}
		}
		return true
	})
	if len(all) < 10 {
		t.Fatalf("the schema has only %q", all)
	}
	return all
}

func TestEveryMethodHasARow(t *testing.T) {
	table, api := caller.Methods(), procedures(t)
	for _, m := range api {
		if len(table[m]) == 0 {
			t.Errorf("%s has no row: nobody may call it", m)
		}
	}
	for m, roles := range table {
		if !slices.Contains(api, m) && !strings.HasPrefix(m, "/grpc.reflection.v1") {
			t.Errorf("row %s is of no method", m)
		}
		for _, r := range roles {
			if !slices.Contains(caller.Roles(), r) {
				t.Errorf("%s: unknown role %q", m, r)
			}
		}
		if !slices.Contains(roles, caller.Admin) {
			t.Errorf("%s: an administrator may not call it", m)
		}
	}
}

// What each role may do beside what all may. A new method has to be added here
// by somebody who has thought about it.
func TestRolesAllow(t *testing.T) {
	issue := []string{
		"TokenService/IssueDataplaneToken", "TokenService/IssueTokens", "TokenService/IssueUserToken", "TokenService/IssueZoneToken",
		"TokenService/IssueControlPlaneToken", "TokenService/IssueZoneIngressToken",
	}
	operate := []string{
		"KeyService/AcknowledgeKeys", "KeyService/ActivateSigningKey", "KeyService/CreateKeyset", "KeyService/DistrustSigningKey",
		"KeyService/ReconcileSigningKeys", "KeyService/RetireSigningKey", "KeyService/RotateKeyset", "KeyService/UpdateKeyset",
	}
	revoke := []string{"RevocationService/RevokeToken", "RevocationService/RevokeTokens"}
	read := []string{
		"RevocationService/CheckRevocations", "RevocationService/GetRevocation", "RevocationService/ListRevocations",
		"RevocationService/WatchRevocations",
	}
	audit := []string{"AuditService/ListAuditEvents", "AuditService/ListIssuances", "CallerService/ListApiTokens"}
	special := map[caller.Role][]string{
		caller.Admin: slices.Concat(issue, operate, revoke, read, audit, []string{
			"CallerService/CreateApiToken", "CallerService/RevokeApiToken",
			"KeyService/DestroySigningKey", "KeyService/ImportPublicKey", "RevocationService/LiftRevocation",
			"LegacyKeyService/CreateLegacyKey", "LegacyKeyService/RotateLegacyKey", "LegacyKeyService/RemoveLegacyKey",
			"LegacyKeyService/ExportLegacyKey", "LegacyKeyService/ListLegacyKeys",
		}),
		caller.Issuer:      issue,
		caller.KeyOperator: slices.Concat(operate, []string{"LegacyKeyService/ListLegacyKeys"}),
		caller.Revoker:     slices.Concat(revoke, read),
		caller.Verifier:    slices.Concat(read, []string{"KeyService/AcknowledgeKeys"}),
		caller.Auditor:     slices.Concat(audit, read, []string{"KeyService/ReconcileSigningKeys", "LegacyKeyService/ListLegacyKeys"}),
	}
	everybody := []string{
		"CallerService/WhoAmI", "KeyService/GetSigningKey", "KeyService/ListKeysets", "KeyService/ListSigningKeys", "TokenService/VerifyToken",
		"LegacyKeyService/VerifyLegacyToken",
	}
	for _, role := range caller.Roles() {
		who := withRoles(string(role))
		for _, m := range procedures(t) {
			short := strings.TrimPrefix(m, "/zonemint.v1.")
			want := slices.Contains(special[role], short) || slices.Contains(everybody, short)
			if got := who.MayCall(caller.Methods(), m) == nil; got != want {
				t.Errorf("%s calls %s: %t, want %t", role, short, got, want)
			}
		}
	}
}

func TestParseRoles(t *testing.T) {
	roles, err := caller.ParseRoles([]string{"issuer", "auditor"})
	if err != nil || !slices.Equal(roles, []caller.Role{caller.Issuer, caller.Auditor}) {
		t.Error(roles, err)
	}
	for _, bad := range []string{"", "Admin", "admin ", "root", "*"} {
		if _, err := caller.ParseRoles([]string{"issuer", bad}); err == nil {
			t.Errorf("role %q passes", bad)
		}
	}
}
