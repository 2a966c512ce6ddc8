package service

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
	"unicode/utf8"

	"encoding/base64"

	pb "github.com/zonemint/zonemint/proto/zonemint/v1"
	"github.com/zonemint/zonemint/service/keyring"
	"github.com/zonemint/zonemint/signer"
	"github.com/zonemint/zonemint/store"
)

func (s keyService) DestroySigningKey(ctx context.Context, req *pb.DestroySigningKeyRequest) (*pb.DestroySigningKeyResponse, error) {
	ks, err := s.managed(ctx, req.GetKeyset())
	if err != nil {
		return nil, err
	}
	k, err := s.store.SigningKey(ctx, ks.ID, int(req.GetSerial()))
	if err != nil {
		return nil, noSerial(ks.Name, int(req.GetSerial()), err)
	}
	now := s.clock.estimate()
	if err := destroyable(ks, k, now, req.GetForce()); err != nil {
		return nil, err
	}
	steps := []*pb.PlannedStep{{
		Action: "destroy", Keyset: ks.Name, Serial: req.GetSerial(), Kid: k.KID, At: timestamp(now),
		Reason: fmt.Sprintf("its private key in backend %q is gone for ever", k.Backend), Evidence: []string{"it is " + string(k.State)},
	}}
	if !req.GetDryRun() {
		if k, err = s.destroy(ctx, ks, k, req); err != nil {
			return nil, err
		}
	}
	return &pb.DestroySigningKeyResponse{Steps: steps, SigningKey: keyToProto(ks.Name, k)}, nil
}

func destroyable(ks store.Keyset, k store.SigningKey, now time.Time, force bool) error {
	switch {
	case k.State == store.StateFailed && now.Before(k.MakingUntil):
		return &held{text: fmt.Sprintf("a replica is still making serial %d, which was given up: try again after %s",
			k.Serial, k.MakingUntil.UTC().Format(time.RFC3339))}
	case k.Imported:
		return &held{text: fmt.Sprintf("serial %d was imported: its private key is not ours", k.Serial)}
	case k.Adopted != "" && !force:
		return &held{text: fmt.Sprintf("serial %d was adopted: zonemint did not make its private key, which others may still use; repeat with force to destroy it", k.Serial)}
	case k.State == store.StateCreating || k.State.Verifies():
		return &held{text: fmt.Sprintf("serial %d of keyset %q is %s: only keys that are removed, distrusted, abandoned or failed can be destroyed",
			k.Serial, ks.Name, k.State)}
	}
	return nil
}

// destroy destroys a key's private half. The wish is written first and the fact
// last, so that dying in between leaves a wish in the audit and a key to be
// destroyed again, which backends allow.
func (s keyService) destroy(ctx context.Context, ks store.Keyset, k store.SigningKey, req *pb.DestroySigningKeyRequest) (store.SigningKey, error) {
	b, ok := s.cfg.Backends[k.Backend]
	if !ok {
		return k, &invalid{"serial", fmt.Sprintf("backend %q is not configured on this server", k.Backend)}
	}
	spec, err := keyring.Spec(ks.Name, k)
	if err != nil {
		return k, err
	}
	asked := !k.DestroyAskedAt.IsZero() // before: then the backend may have done it
	if k, err = s.store.Destroying(ctx, ks, k.Serial, req.GetReason(), actorOf(ctx)); err != nil {
		return k, err
	}
	refs := []signer.Ref{k.Ref}
	if len(k.Ref) == 0 && k.Adopted != "" {
		refs = nil // it was never found, or is gone
	} else if len(k.Ref) == 0 {
		// It failed, or was destroyed before: what there is is known by its label.
		if err := sleep(ctx, b.Traits().ConsistencyWindow); err != nil {
			return k, err
		}
		if refs, err = signer.Find(ctx, b, spec); err != nil {
			return k, err
		}
	}
	for _, ref := range refs {
		err := signer.Destroy(ctx, b, spec, ref)
		switch {
		case signer.CodeOf(err) == signer.NotFound && !asked && !req.GetForce():
			return k, &held{text: fmt.Sprintf(
				"backend %q has no such key. If it is the backend that it was made in, and somebody has destroyed the key there, repeat with force", k.Backend)}
		case err != nil && signer.CodeOf(err) != signer.NotFound:
			return k, err
		}
	}
	return s.store.Destroyed(ctx, ks, k.Serial, req.GetReason(), actorOf(ctx))
}

func (s keyService) ReconcileSigningKeys(ctx context.Context, req *pb.ReconcileSigningKeysRequest) (*pb.ReconcileSigningKeysResponse, error) {
	if err := callerOf(ctx).Unbounded(); err != nil {
		return nil, err
	}
	names := req.GetBackends()
	for _, name := range names {
		if _, ok := s.cfg.Backends[name]; !ok {
			return nil, &invalid{"backends", fmt.Sprintf("%q is not configured on this server", name)}
		}
	}
	if len(names) == 0 {
		for name := range s.cfg.Backends {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	resp := &pb.ReconcileSigningKeysResponse{}
	found := map[string][]signer.Labelled{}
	for _, name := range names {
		keys, err := listKeys(ctx, s.cfg.Backends[name])
		if err != nil {
			_, text := explain(err)
			resp.Failed = append(resp.Failed, name+": "+text)
			continue
		}
		found[name] = keys
		resp.Found += int64(len(keys))
	}
	// The rows come after the keys: whatever was made before this has its row.
	return resp, s.compare(ctx, found, resp)
}

func listKeys(ctx context.Context, b signer.Backend) (keys []signer.Labelled, err error) {
	err = signer.List(ctx, b, func(k signer.Labelled) error {
		keys = append(keys, k)
		return nil
	})
	return keys, err
}

// compare fills in what the backends have and no row knows, and the reverse.
func (s keyService) compare(ctx context.Context, found map[string][]signer.Labelled, resp *pb.ReconcileSigningKeysResponse) error {
	// This replica's ring may lack a keyset that another one has just made.
	if err := s.ring.Refresh(ctx); err != nil {
		return err
	}
	ring := s.ring.Load()
	tampered := ring.Faults() > 0
	var errs []error
	known := map[string]signer.Ref{}
	for _, ks := range ring.Keysets() {
		rows, err := s.store.SigningKeys(ctx, ks.ID)
		tampered = tampered || errors.Is(err, store.ErrTampered)
		errs = append(errs, s.despiteTampering(ctx, err))
		for _, row := range rows {
			if row.DestroyedAt.IsZero() {
				known[row.Label] = row.Ref
			}
			keys, looked := found[row.Backend]
			if looked && expected(s.cfg.Backends[row.Backend], row) && !slices.ContainsFunc(keys, func(k signer.Labelled) bool { return k.Label == row.Label }) {
				resp.Missing = append(resp.Missing, keyToProto(ks.Name, row))
			}
		}
	}
	if tampered { // somebody might destroy, as unknown, the key of a row that was left out
		resp.Failed = append(resp.Failed, "the database: a row does not match its MAC, so no key can be called unknown; the server's log says which row")
		return errors.Join(errs...)
	}
	for name, keys := range found {
		for _, k := range keys {
			// Two keys under one label are one too many.
			if ref, ok := known[k.Label]; !ok || len(ref) > 0 && !bytes.Equal(ref, k.Ref) {
				resp.Unknown = append(resp.Unknown, &pb.BackendKey{
					Backend: name, Label: k.Label, Reference: printable(k.Ref), Keyset: k.Keyset, Serial: int32(k.Serial), CreatedAt: timestamp(k.CreatedAt),
				})
			}
		}
	}
	return errors.Join(errs...)
}

// expected says whether a backend ought to have the key of a row.
func expected(b signer.Backend, row store.SigningKey) bool {
	return !b.Traits().Stateless && !row.Imported && row.Adopted == "" && row.DestroyedAt.IsZero() &&
		row.State != store.StateCreating && row.State != store.StateFailed
}

func printable(ref signer.Ref) string {
	if utf8.Valid(ref) {
		return string(ref)
	}
	return base64.StdEncoding.EncodeToString(ref)
}
