package command

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/zonemint/zonemint/kuma"
	pb "github.com/zonemint/zonemint/proto/zonemint/v1"
	"github.com/zonemint/zonemint/token"
)

// What became of a key of a control plane.
const (
	keyImported    = "imported"
	keyWouldImport = "would import"
	keyKnown       = "trusted already"
	keySkipped     = "skipped"
	keyConflict    = "conflict"
	keyNoProof     = "no proof"
	keyFailed      = "failed"
)

// importedKey says what became of a key of a control plane.
type importedKey struct {
	Keyset       string `json:"keyset"`
	KID          string `json:"kid"`
	Secret       string `json:"secret"`
	Result       string `json:"result"`
	TrustedUntil string `json:"trustedUntil,omitempty"`
	Detail       string `json:"detail,omitempty"`

	err error // why it failed, for the exit code
}

// failed says whether tokens of the key are not taken care of.
func (k importedKey) failed() bool {
	switch k.Result {
	case keyConflict, keyNoProof, keyFailed:
		return true
	default:
		return false
	}
}

// keys takes over the keys among the secrets that are for the tokens of a keyset.
func (t *takeover) keys(ctx context.Context, ks keysetKeys, secrets []kuma.Secret) []importedKey {
	var out []importedKey
	keys, unusable := kuma.OwnKeys(secrets, profileOf(ks.Keyset), meshOf(ks.Keyset))
	for _, u := range unusable {
		result := keyFailed
		if u.Legacy {
			result = keySkipped
		}
		out = append(out, importedKey{Keyset: ks.GetName(), KID: u.ID, Secret: u.Ref.String(), Result: result, Detail: u.Reason})
	}
	for _, key := range keys {
		done := importedKey{Keyset: ks.GetName(), KID: key.ID, Secret: key.Ref.String()}
		t.key(ctx, ks, key, &done)
		key.Forget()
		out = append(out, done)
	}
	return out
}

// key takes over one key and says in done what became of it.
func (t *takeover) key(ctx context.Context, ks keysetKeys, key kuma.OwnKey, done *importedKey) {
	if t.settled(ks, key, done) {
		return
	}
	proof := ""
	if !key.CanSign() {
		var err error
		if proof, err = t.proof(ctx, ks, key.ID); err != nil {
			done.Result, done.Detail, done.err = keyNoProof, err.Error(), err
			return
		}
	}
	if t.dryRun {
		done.Result, done.TrustedUntil = keyWouldImport, moment(timestamppb.New(t.until))
		return
	}
	k, err := t.importKey(ctx, ks.GetName(), key, proof)
	if err != nil {
		done.Result, done.Detail, done.err = keyFailed, err.Error(), err
		return
	}
	done.Result, done.TrustedUntil = keyImported, moment(k.GetTrustedUntil())
	t.remember(ks.GetName(), k)
}

// settled compares the key with those that zonemint has, and says whether that is
// the end of it.
func (t *takeover) settled(ks keysetKeys, key kuma.OwnKey, done *importedKey) bool {
	for _, other := range t.all {
		for _, k := range other.keys {
			here, same := other.GetName() == ks.GetName(), k.GetPublicKey() == key.Public.PEM
			if here && !same && k.GetKid() == key.ID {
				done.Result = keyConflict
				done.Detail = fmt.Sprintf("the keyset has another key under this ID, serial %d: import into another keyset", k.GetSerial())
				return true
			}
			if same && (here || verifies(k)) {
				done.Result, done.Detail = compare(other, k, key.ID, here)
				if done.Result == keyKnown {
					done.TrustedUntil = moment(k.GetTrustedUntil())
				}
				return true
			}
		}
	}
	return false
}

// compare says what it means that zonemint has the key already.
func compare(in keysetKeys, k *pb.SigningKey, kid string, here bool) (result, detail string) {
	switch {
	case !k.GetImported(): // the control plane was given it
		return keySkipped, fmt.Sprintf("it is keyset %q's own, serial %d", in.GetName(), k.GetSerial())
	case !here:
		return keyConflict, fmt.Sprintf("keyset %q trusts this key: its tokens would be good for both", in.GetName())
	case k.GetKid() != kid:
		return keyConflict, "the keyset has this key under another ID, " + k.GetKid()
	case !verifies(k):
		return keyConflict, fmt.Sprintf("the keyset had this key as serial %d, which is %s%s: it is not trusted again", k.GetSerial(), k.GetState(), reasonIn(k))
	default:
		return keyKnown, ""
	}
}

func reasonIn(k *pb.SigningKey) string {
	if k.GetReason() == "" {
		return ""
	}
	return " (" + printable(k.GetReason()) + ")"
}

// remember adds an imported key to what zonemint has, for the keys that follow.
func (t *takeover) remember(keyset string, k *pb.SigningKey) {
	for i, ks := range t.all {
		if ks.GetName() == keyset {
			t.all[i].keys = append(ks.keys, k)
		}
	}
}

// proof returns a token that the key has signed.
func (t *takeover) proof(ctx context.Context, ks keysetKeys, kid string) (string, error) {
	if proof, ok := t.proofs[kid]; ok {
		return proof, nil
	}
	missing := fmt.Errorf("%w: give a token that it has signed, which may have expired, to --proof-token-file", kuma.ErrPublicOnly)
	switch {
	case t.reader == nil || t.asked:
		return "", missing
	case t.dryRun:
		return "", nil // it would be asked
	}
	t.asked = true // it always signs with the same key
	raw, err := t.reader.ProofToken(ctx, profileOf(ks.Keyset), meshOf(ks.Keyset))
	if err != nil {
		return "", fmt.Errorf("%w\n(%w)", missing, err)
	}
	header, err := token.UnverifiedHeader(raw)
	if err != nil {
		return "", missing
	}
	t.proofs[header.KeyID] = raw
	if header.KeyID != kid {
		return "", fmt.Errorf("%w (the control plane signs with key %.64q now)", missing, header.KeyID)
	}
	return raw, nil
}

// importKey proves to the server that the key is the asker's, and has it trusted.
func (t *takeover) importKey(ctx context.Context, keyset string, key kuma.OwnKey, proof string) (*pb.SigningKey, error) {
	req := &pb.ImportPublicKeyRequest{
		Keyset: keyset, PublicKey: key.Public.PEM, Kid: key.ID, Algorithm: "RS256", Token: proof,
		TrustedUntil: timestamppb.New(t.until), Reason: fmt.Sprintf("taken over from %.400s of a control plane", key.Ref),
	}
	resp, err := t.client.keys.ImportPublicKey(ctx, req)
	if err != nil {
		return nil, err
	}
	if resp.GetSigningKey() == nil {
		if err := checkChallenge(resp.GetChallenge()); err != nil {
			return nil, err
		}
		req.Challenge = resp.GetChallenge()
		if req.ChallengeSignature, err = key.Sign([]byte(req.GetChallenge())); err != nil {
			return nil, err
		}
		if resp, err = t.client.keys.ImportPublicKey(ctx, req); err != nil {
			return nil, err
		}
	}
	if resp.GetSigningKey() == nil {
		return nil, errors.New("the server did not import the key, and did not say why")
	}
	return resp.GetSigningKey(), nil
}
