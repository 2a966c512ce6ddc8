package vault

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"

	"github.com/zonemint/zonemint/signer"
)

// keyInfo is what the engine says of a key.
type keyInfo struct {
	Type                 string                     `json:"type"`
	Exportable           bool                       `json:"exportable"`
	AllowPlaintextBackup bool                       `json:"allow_plaintext_backup"`
	Derived              bool                       `json:"derived"`
	Imported             bool                       `json:"imported_key"`
	SoftDeleted          bool                       `json:"soft_deleted"` // OpenBao
	Keys                 map[string]json.RawMessage `json:"keys"`         // by version
}

// Create implements [signer.Backend]. The engine answers with the key that
// there is if one of that name exists; since labels are random that is one of an
// earlier try, and it is taken only if it could be.
func (b *Backend) Create(ctx context.Context, spec signer.Spec) (signer.Ref, error) {
	const op = "create a key in vault"
	name, err := b.keyName(spec)
	if err != nil {
		return nil, err
	}
	var said struct {
		Data *keyInfo `json:"data"`
	}
	err = b.call(ctx, request{op: op, method: http.MethodPost, path: b.path("keys", name), body: map[string]any{
		"type": keyType(spec.Algorithm), "exportable": false, "allow_plaintext_backup": false,
	}}, &said)
	if err != nil {
		return nil, err
	}
	key := said.Data
	if key == nil { // servers before Vault 1.14 answer with nothing
		if key, err = b.read(ctx, op, name); err != nil {
			return nil, err
		}
	}
	if err := key.fits(name, spec.Algorithm); err != nil {
		return nil, err
	}
	if key.leaves() {
		return nil, fail(signer.Corrupt, "%s: the key %s is there already and was made to leave the engine: somebody may have a copy", op, name)
	}
	return newRef(name), nil
}

// Find implements [signer.Backend].
func (b *Backend) Find(ctx context.Context, spec signer.Spec) ([]signer.Ref, error) {
	name, err := b.keyName(spec)
	if err != nil {
		return nil, err
	}
	key, err := b.read(ctx, "look for a key in vault", name)
	if codeOf(err) == signer.NotFound {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if err := key.fits(name, spec.Algorithm); err != nil {
		return nil, err
	}
	return []signer.Ref{newRef(name)}, nil
}

// List implements [signer.Backend]. It is one call, a GET and not a LIST, which
// some proxies refuse. When keys were made it does not say.
func (b *Backend) List(ctx context.Context, each func(signer.Labelled) error) error {
	var said struct {
		Data struct {
			Keys []string `json:"keys"`
		} `json:"data"`
	}
	err := b.call(ctx, request{op: "list the keys in vault", method: http.MethodGet, path: b.mount + "/keys?list=true", repeatable: true}, &said)
	if codeOf(err) == signer.NotFound {
		return nil // how an engine without keys answers
	}
	if err != nil {
		return err
	}
	for _, name := range said.Data.Keys {
		spec, ok := b.parseName(name)
		if !ok {
			continue
		}
		if err := each(signer.Labelled{Label: spec.Label, Ref: newRef(name), Keyset: spec.Keyset, Serial: spec.Serial}); err != nil {
			return err
		}
	}
	return nil
}

// Open implements [signer.Backend]. It makes no call: that a key exists shows
// when it is used.
func (b *Backend) Open(ctx context.Context, spec signer.Spec, ref signer.Ref) (signer.Handle, error) {
	if err := b.check(ctx); err != nil {
		return nil, err
	}
	name, err := b.nameFor(spec, ref)
	if err != nil {
		return nil, err
	}
	return &handle{backend: b, name: name, algorithm: spec.Algorithm}, nil
}

// Destroy implements [signer.Backend]. The engine deletes a key only after it
// was told that this may be; to be interrupted in between is harmless.
func (b *Backend) Destroy(ctx context.Context, spec signer.Spec, ref signer.Ref) error {
	name, err := b.nameFor(spec, ref)
	if err != nil {
		return err
	}
	err = b.call(ctx, request{op: "allow a key in vault to be deleted", method: http.MethodPost,
		path: b.path("keys", name) + "/config", body: map[string]any{"deletion_allowed": true}}, nil)
	if err != nil {
		return err
	}
	return b.call(ctx, request{op: "delete a key in vault", method: http.MethodDelete, path: b.path("keys", name)}, nil)
}

// path needs no escaping: names are made of letters that stand for themselves.
func (b *Backend) path(kind, name string) string { return b.mount + "/" + kind + "/" + name }

func (b *Backend) read(ctx context.Context, op, name string) (*keyInfo, error) {
	var said struct {
		Data *keyInfo `json:"data"`
	}
	err := b.call(ctx, request{op: op, method: http.MethodGet, path: b.path("keys", name), repeatable: true}, &said)
	if err != nil {
		return nil, err
	}
	if said.Data == nil {
		return nil, fail(signer.Corrupt, "%s: the answer says nothing of the key %s", op, name)
	}
	if said.Data.SoftDeleted {
		return nil, fail(signer.NotFound, "%s: the key %s was deleted, and can be restored", op, name)
	}
	return said.Data, nil
}

// fits says whether a key can be what was made for alg under its name.
func (k *keyInfo) fits(name string, alg signer.Algorithm) error {
	if want := keyType(alg); k.Type != want || k.Derived {
		return fail(signer.Corrupt, "the key %s in vault is of type %.40q, want %s and not derived: it is not the one that was made", name, k.Type, want)
	}
	return nil
}

// leaves says whether the private key can be, or has been, outside the engine.
func (k *keyInfo) leaves() bool { return k.Exportable || k.AllowPlaintextBackup || k.Imported }

// warnIfLeaves tells operators. The flags are switched on once and never off,
// so it changes nothing to refuse to sign: the key is to be rotated.
func (b *Backend) warnIfLeaves(ctx context.Context, name string, k *keyInfo) {
	if k.leaves() {
		b.log.WarnContext(ctx, "a signing key in vault can be copied: somebody has changed it, rotate to a new one",
			slog.String("key", name), slog.Bool("exportable", k.Exportable),
			slog.Bool("allow_plaintext_backup", k.AllowPlaintextBackup), slog.Bool("imported", k.Imported))
	}
}

// keyType is the engine's name for the keys of an algorithm.
func keyType(alg signer.Algorithm) string {
	switch {
	case alg.RSABits() != 0:
		return fmt.Sprintf("rsa-%d", alg.RSABits())
	case alg == signer.ES256:
		return "ecdsa-p256"
	case alg == signer.ES384:
		return "ecdsa-p384"
	default:
		return "ed25519"
	}
}
