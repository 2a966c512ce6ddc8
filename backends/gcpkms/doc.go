// Package gcpkms is the signing backend for private keys in Google Cloud KMS.
//
// Every serial is a CryptoKey of its own, in one key ring, and signs with the one
// version of it that was made with it, always named in full: asymmetric keys have no
// primary version. Versions of one key per keyset would be fewer objects, but a
// version carries no name of our choosing and no labels, so after a crash nobody could
// tell whose it is, and each request for one makes one more. The ID of a key is made
// from its label instead. That makes creation safe to repeat: the same request makes
// a key once and then finds it there. What has the ID shows in one read, and what
// others do to other keys changes nothing.
//
// An ID is the label and 16 digits of a hash over keyset, serial and algorithm: a
// reference opens for no other spec, and though labels of keys can be changed by anybody who
// may update them, IDs cannot. The labels of the key say the same in words. The ID of a
// key that was taken over says nothing, so its reference does.
//
// Only if the service reports that it could not generate a version (state
// GENERATION_FAILED) is another version made in the same key, after a look at
// those there are. "Delete Cloud KMS resources": IDs are never free again.
package gcpkms
