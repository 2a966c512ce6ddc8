package vault

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"sync"

	"github.com/zonemint/zonemint/signer"
)

// handle is one key in the engine. It holds nothing that can go stale.
type handle struct {
	backend   *Backend
	name      string
	algorithm signer.Algorithm
}

// Public implements [signer.Handle]. The engine leaves versions out of its
// answer once min_decryption_version has passed them, though nobody has
// destroyed them: callers keep what they have read.
func (h *handle) Public(ctx context.Context) (crypto.PublicKey, error) {
	const op = "read a public key in vault"
	key, err := h.backend.read(ctx, op, h.name)
	if err != nil {
		return nil, err
	}
	if err := key.fits(h.name, h.algorithm); err != nil {
		return nil, err
	}
	h.backend.warnIfLeaves(ctx, h.name, key)
	raw, ok := key.Keys[strconv.Itoa(version)]
	if !ok {
		return nil, fail(signer.NotFound, "%s: the key %s no longer shows its version %d", op, h.name, version)
	}
	var shown struct {
		PublicKey string `json:"public_key"`
	}
	if json.Unmarshal(raw, &shown) != nil {
		return nil, fail(signer.Corrupt, "%s: the answer for %s holds no public key", op, h.name)
	}
	public, err := parsePublic(h.algorithm, shown.PublicKey)
	if err != nil {
		return nil, fail(signer.Corrupt, "%s: the public key of %s: %w", op, h.name, err)
	}
	return public, nil
}

// parsePublic reads PEM, or for Ed25519 the bare 32 bytes in base64.
func parsePublic(alg signer.Algorithm, text string) (crypto.PublicKey, error) {
	if alg == signer.EdDSA {
		raw, err := base64.StdEncoding.Strict().DecodeString(text)
		if err != nil || len(raw) != ed25519.PublicKeySize {
			return nil, errors.New("want 32 bytes in base64")
		}
		return ed25519.PublicKey(raw), nil
	}
	block, rest := pem.Decode([]byte(text))
	if block == nil || strings.TrimSpace(string(rest)) != "" {
		return nil, errors.New("want one block of PEM")
	}
	public, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	return public, alg.Fits(public)
}

// signRequest is sent for a signature. Fields that an algorithm does not use
// are left out: servers log parameters that they do not know or ignore.
type signRequest struct {
	Input      []byte      `json:"input,omitempty"` // base64 in JSON, as the engine wants it
	Batch      []batchItem `json:"batch_input,omitempty"`
	KeyVersion int         `json:"key_version"` // always: without it whatever is newest signs
	Prehashed  bool        `json:"prehashed,omitempty"`
	Signature  string      `json:"signature_algorithm,omitempty"`
	Salt       string      `json:"salt_length,omitempty"`
	Marshaling string      `json:"marshaling_algorithm,omitempty"`
}

type batchItem struct {
	Input []byte `json:"input"`
}

type signAnswer struct {
	Signature string `json:"signature"`
	Error     string `json:"error"` // of an item in a batch
}

// Sign implements [signer.Handle]. It is one request.
func (h *handle) Sign(ctx context.Context, alg signer.Algorithm, in []byte) ([]byte, error) {
	const op = "sign with vault"
	r, err := h.request(op, alg)
	if err != nil {
		return nil, err
	}
	body := newSignRequest(alg)
	body.Input = in
	r.body = body
	var said struct {
		Data signAnswer `json:"data"`
	}
	if err := h.backend.call(ctx, r, &said); err != nil {
		return nil, err
	}
	return parseSignature(op, said.Data.Signature)
}

// batchSize is how many signatures one request asks for. The engine makes them
// one after the other, so that parts of a longer batch go side by side.
const batchSize = 64

// SignBatch is Sign for many inputs, with one request for up to 64 of them. It
// returns for each input either a signature or an error.
func (h *handle) SignBatch(ctx context.Context, alg signer.Algorithm, ins [][]byte) (sigs [][]byte, errs []error) {
	sigs, errs = make([][]byte, len(ins)), make([]error, len(ins))
	var parts sync.WaitGroup
	for from := 0; from < len(ins); from += batchSize {
		to := min(from+batchSize, len(ins))
		parts.Go(func() { h.signPart(ctx, alg, ins[from:to], sigs[from:to], errs[from:to]) })
	}
	parts.Wait()
	return sigs, errs
}

func (h *handle) signPart(ctx context.Context, alg signer.Algorithm, ins, sigs [][]byte, errs []error) {
	const op = "sign a batch with vault"
	var said struct {
		Data struct {
			Results []signAnswer `json:"batch_results"`
		} `json:"data"`
	}
	r, err := h.request(op, alg)
	if err == nil {
		body := newSignRequest(alg)
		for _, in := range ins {
			body.Batch = append(body.Batch, batchItem{in})
		}
		r.body = body
		err = h.backend.call(ctx, r, &said)
	}
	if err == nil && len(said.Data.Results) != len(ins) {
		err = fail(signer.Corrupt, "%s: %d answers to %d inputs", op, len(said.Data.Results), len(ins))
	}
	for i := range ins {
		switch {
		case err != nil:
			errs[i] = err
		case said.Data.Results[i].Error != "":
			errs[i] = refusedItem(op, said.Data.Results[i].Error)
		default:
			sigs[i], errs[i] = parseSignature(op, said.Data.Results[i].Signature)
		}
	}
}

func refusedItem(op, words string) error {
	text, err := json.Marshal(map[string]any{"errors": []string{words}})
	if err != nil {
		return err
	}
	return refusal(request{op: op}, http.StatusBadRequest, nil, text)
}

// request is what all signatures of the key have in common.
func (h *handle) request(op string, alg signer.Algorithm) (request, error) {
	if alg != h.algorithm {
		return request{}, fail(signer.Unsupported, "a key for %s does not sign with %s", h.algorithm, alg)
	}
	path := h.backend.path("sign", h.name)
	if bits := alg.Hash().Size; alg.Hash() != 0 {
		path += "/sha2-" + strconv.Itoa(8*bits())
	}
	return request{op: op, method: http.MethodPost, path: path, repeatable: true}, nil
}

// newSignRequest says what the engine would choose otherwise: for RSA that is
// PSS with the longest salt, and for a digest to hash it again.
func newSignRequest(alg signer.Algorithm) *signRequest {
	r := &signRequest{KeyVersion: version, Prehashed: alg.Hash() != 0}
	_, pss := alg.Opts().(*rsa.PSSOptions)
	switch {
	case pss:
		r.Signature, r.Salt = "pss", "hash"
	case alg.RSABits() != 0:
		r.Signature = "pkcs1v15"
	case alg.Curve() != nil:
		r.Marshaling = "asn1"
	}
	return r
}

// parseSignature reads "vault:v1:BASE64". Another version is another key.
func parseSignature(op, text string) ([]byte, error) {
	prefix := "vault:v" + strconv.Itoa(version) + ":"
	encoded, ok := strings.CutPrefix(text, prefix)
	if !ok {
		return nil, fail(signer.Corrupt, "%s: the signature does not begin with %s, so another key has made it", op, prefix)
	}
	sig, err := base64.StdEncoding.Strict().DecodeString(encoded)
	if err != nil || len(sig) == 0 {
		return nil, fail(signer.Corrupt, "%s: the signature is not in base64", op)
	}
	return sig, nil
}
