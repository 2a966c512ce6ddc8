// Package gcpkmsdouble is a stand-in for Google Cloud KMS: a gRPC server on loopback
// with real keys, as strict as the service.
//
// It is written from the vendor's pages and not from what a client of it sends: the
// API's reference (google.cloud.kms.v1), "Cloud KMS resource consistency", "Labeling
// keys", "Destroy and restore key versions", "Verifying end-to-end data integrity",
// "Using gRPC with Cloud KMS" and "Permissions and roles", and from the
// contract tests that Google runs against the service and its own fake of it
// (kms-integrations, fakekms/contract). Words of errors are those seen in public
// reports of the service's answers. What no page says is marked where it is made up.
//
// A field of a request that the double does not know is refused with Unimplemented,
// so that nothing is ignored in silence.
package gcpkmsdouble
