// Package caller knows who makes a request and what that caller may do.
package caller

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	v1 "github.com/zonemint/zonemint/proto/zonemint/v1/zonemintv1connect"
)

// Role is a set of methods. A caller may have several.
type Role string

// The roles.
const (
	Admin       Role = "admin"        // everything
	Issuer      Role = "issuer"       // issues and verifies tokens
	KeyOperator Role = "key-operator" // manages keysets and keys
	Revoker     Role = "revoker"      // revokes tokens
	Verifier    Role = "verifier"     // reads revocations, acknowledges keys
	Auditor     Role = "auditor"      // reads everything, changes nothing
)

// Roles returns all roles.
func Roles() []Role { return []Role{Admin, Issuer, KeyOperator, Revoker, Verifier, Auditor} }

// Methods says which roles may call which method: deny by default, one row for
// every method of the API. Narrowing to keysets, zones, scopes and lifetimes
// comes on top, where the method has its effect.
func Methods() map[string][]Role {
	all := Roles()
	table := map[string][]Role{
		v1.TokenServiceIssueZoneTokenProcedure:      {Admin, Issuer},
		v1.TokenServiceIssueDataplaneTokenProcedure: {Admin, Issuer},
		v1.TokenServiceIssueUserTokenProcedure:      {Admin, Issuer},
		v1.TokenServiceIssueTokensProcedure:         {Admin, Issuer},
		v1.TokenServiceVerifyTokenProcedure:         all,

		v1.KeyServiceCreateKeysetProcedure:         {Admin, KeyOperator},
		v1.KeyServiceUpdateKeysetProcedure:         {Admin, KeyOperator},
		v1.KeyServiceListKeysetsProcedure:          all,
		v1.KeyServiceListSigningKeysProcedure:      all,
		v1.KeyServiceGetSigningKeyProcedure:        all,
		v1.KeyServiceRotateKeysetProcedure:         {Admin, KeyOperator},
		v1.KeyServiceActivateSigningKeyProcedure:   {Admin, KeyOperator},
		v1.KeyServiceRetireSigningKeyProcedure:     {Admin, KeyOperator},
		v1.KeyServiceDistrustSigningKeyProcedure:   {Admin, KeyOperator},
		v1.KeyServiceDestroySigningKeyProcedure:    {Admin},
		v1.KeyServiceImportPublicKeyProcedure:      {Admin},
		v1.KeyServiceAcknowledgeKeysProcedure:      {Admin, KeyOperator, Verifier},
		v1.KeyServiceReconcileSigningKeysProcedure: {Admin, KeyOperator, Auditor},

		v1.RevocationServiceRevokeTokenProcedure:      {Admin, Revoker},
		v1.RevocationServiceRevokeTokensProcedure:     {Admin, Revoker},
		v1.RevocationServiceLiftRevocationProcedure:   {Admin},
		v1.RevocationServiceGetRevocationProcedure:    {Admin, Revoker, Verifier, Auditor},
		v1.RevocationServiceListRevocationsProcedure:  {Admin, Revoker, Verifier, Auditor},
		v1.RevocationServiceCheckRevocationsProcedure: {Admin, Revoker, Verifier, Auditor},
		v1.RevocationServiceWatchRevocationsProcedure: {Admin, Revoker, Verifier, Auditor},

		v1.AuditServiceListIssuancesProcedure:   {Admin, Auditor},
		v1.AuditServiceListAuditEventsProcedure: {Admin, Auditor},

		v1.CallerServiceCreateApiTokenProcedure: {Admin},
		v1.CallerServiceListApiTokensProcedure:  {Admin, Auditor},
		v1.CallerServiceRevokeApiTokenProcedure: {Admin},
		v1.CallerServiceWhoAmIProcedure:         all,

		// The schema of the API, for tools like grpcurl.
		"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo":      all,
		"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": all,
	}
	maps.Copy(table, legacyMethods())
	return table
}

// ParseRoles checks the names of roles.
func ParseRoles(names []string) ([]Role, error) {
	roles := make([]Role, 0, len(names))
	for _, n := range names {
		if !slices.Contains(Roles(), Role(n)) {
			return nil, fmt.Errorf("unknown role %q, want one of %s", n, joinRoles())
		}
		roles = append(roles, Role(n))
	}
	return roles, nil
}

func joinRoles() string {
	var names []string
	for _, r := range Roles() {
		names = append(names, string(r))
	}
	return strings.Join(names, ", ")
}
