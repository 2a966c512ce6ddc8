package caller

import (
	"fmt"

	v1 "github.com/zonemint/zonemint/proto/zonemint/v1/zonemintv1connect"
)

// legacyMethods are the rows of the old HS256 tokens.
func legacyMethods() map[string][]Role {
	return map[string][]Role{
		v1.TokenServiceIssueControlPlaneTokenProcedure: {Admin, Issuer},
		v1.TokenServiceIssueZoneIngressTokenProcedure:  {Admin, Issuer},

		v1.LegacyKeyServiceCreateLegacyKeyProcedure:   {Admin},
		v1.LegacyKeyServiceListLegacyKeysProcedure:    {Admin, KeyOperator, Auditor},
		v1.LegacyKeyServiceRotateLegacyKeyProcedure:   {Admin},
		v1.LegacyKeyServiceRemoveLegacyKeyProcedure:   {Admin},
		v1.LegacyKeyServiceExportLegacyKeyProcedure:   {Admin},
		v1.LegacyKeyServiceVerifyLegacyTokenProcedure: Roles(),
	}
}

// MayUseLegacy checks that the caller is not narrowed to keysets: the keys of the
// old HS256 tokens are in none.
func (c Caller) MayUseLegacy() error {
	if c.NarrowedToKeysets() {
		return fmt.Errorf("%w: this API token is narrowed to keysets, and old HS256 tokens are of none", ErrForbidden)
	}
	return nil
}

// MayIssueLegacy checks an old HS256 token for a zone against the caller's bounds.
// scope is what zone tokens for the same use have.
func (c Caller) MayIssueLegacy(zone, scope string) error {
	if err := c.MayUseLegacy(); err != nil {
		return err
	}
	if most := c.Token.MaxValidFor; most != 0 {
		return fmt.Errorf("%w: this API token issues tokens for %s at the most, and old HS256 tokens never expire", ErrForbidden, most)
	}
	return c.MayIssueZone(zone, []string{scope})
}
