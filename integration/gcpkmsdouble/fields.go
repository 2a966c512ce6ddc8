package gcpkmsdouble

import (
	"slices"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// fieldsOf are the fields of a request that the double understands.
func fieldsOf(op string) []string {
	return map[string][]string{
		"CreateCryptoKey": {"parent", "crypto_key_id", "skip_initial_version_creation", "crypto_key.purpose", "crypto_key.labels",
			"crypto_key.version_template.algorithm", "crypto_key.version_template.protection_level", "crypto_key.destroy_scheduled_duration.seconds"},
		"GetCryptoKey":            {"name"},
		"ListCryptoKeys":          {"parent", "page_size", "page_token"},
		"CreateCryptoKeyVersion":  {"parent", "crypto_key_version"},
		"GetCryptoKeyVersion":     {"name"},
		"ListCryptoKeyVersions":   {"parent", "page_size", "page_token", "view"},
		"UpdateCryptoKeyVersion":  {"crypto_key_version.name", "crypto_key_version.state", "update_mask.paths"},
		"DestroyCryptoKeyVersion": {"name"},
		"RestoreCryptoKeyVersion": {"name"},
		"GetPublicKey":            {"name"},
		"AsymmetricSign": {"name", "data", "data_crc32c.value", "digest_crc32c.value",
			"digest.sha256", "digest.sha384", "digest.sha512"},
	}[op]
}

// known refuses a request with a field that the double does not understand.
func known(op string, req proto.Message) error {
	return within(op, fieldsOf(op), "", req.ProtoReflect())
}

func within(op string, fields []string, prefix string, m protoreflect.Message) (err error) {
	if len(m.GetUnknown()) > 0 {
		return status.Errorf(codes.Unimplemented, "%s: a field of %q that this server does not know", op, prefix)
	}
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		name := prefix + string(f.Name())
		switch {
		case slices.Contains(fields, name):
		case f.Message() != nil && !f.IsMap() && !f.IsList():
			err = within(op, fields, name+".", v.Message())
		default:
			err = status.Errorf(codes.Unimplemented, "%s: the field %s, which this server does not know", op, name)
		}
		return err == nil
	})
	return err
}
