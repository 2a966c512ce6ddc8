package awskms

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
	"golang.org/x/sync/errgroup"

	"github.com/zonemint/zonemint/signer"
)

const (
	pageSize  = 1000 // the most that ListKeys gives at a time
	atOnce    = 8    // keys that are looked at side by side; the quota is shared with the whole account
	opList    = "list the keys in AWS KMS"
	readEvery = "every key has to be readable, so that none of zonemint's is missed: allow kms:DescribeKey for all keys of the account, " +
		"or have the setting skip_unreadable_keys pass over those of others"
)

// labelled is a key whose description says that it is zonemint's.
type labelled struct {
	key  *types.KeyMetadata
	spec signer.Spec
}

// Find implements [signer.Backend]. Keys that wait for their deletion are not found. A
// key that is listed and cannot be read yet may be the one, and fails the search.
func (b *Backend) Find(ctx context.Context, spec signer.Spec) ([]signer.Ref, error) {
	var refs []signer.Ref
	err := b.scan(ctx, min(b.opts.ConsistencyWindow, patience), func(l labelled) error {
		if l.spec.Label != spec.Label {
			return nil
		}
		if l.spec != spec || l.key.KeySpec != keySpec(spec.Algorithm) || l.key.KeyUsage != types.KeyUsageTypeSignVerify {
			return failf(signer.Corrupt, "the key %s is a %.40q, described as serial %d of keyset %s, %s, and was to be serial %d of keyset %s, %s",
				aws.ToString(l.key.Arn), l.key.KeySpec, l.spec.Serial, l.spec.Keyset, l.spec.Algorithm, spec.Serial, spec.Keyset, spec.Algorithm)
		}
		refs = append(refs, newRef(spec, aws.ToString(l.key.Arn)))
		return nil
	})
	if err != nil {
		return nil, err
	}
	return refs, nil
}

// List implements [signer.Backend]. Keys that wait for their deletion are not listed,
// nor those that cannot be read yet.
func (b *Backend) List(ctx context.Context, each func(signer.Labelled) error) error {
	return b.scan(ctx, 0, func(l labelled) error {
		return each(signer.Labelled{
			Label: l.spec.Label, Ref: newRef(l.spec, aws.ToString(l.key.Arn)), Keyset: l.spec.Keyset, Serial: l.spec.Serial,
			CreatedAt: aws.ToTime(l.key.CreationDate),
		})
	})
}

// scan calls each for every key of zonemint's, page by page. If patience is not 0, it
// waits for keys that are listed and cannot be read, and fails if that takes longer.
func (b *Backend) scan(ctx context.Context, patience time.Duration, each func(labelled) error) error {
	s := search{b: b, patience: patience, began: time.Now(), seen: map[string]bool{}}
	in := &kms.ListKeysInput{Limit: aws.Int32(pageSize)}
	for {
		page, err := call(ctx, b, opList, b.kms.ListKeys, in, again)
		if err != nil {
			return err
		}
		found, err := s.look(ctx, page.Keys)
		if err != nil {
			return err
		}
		for _, l := range found {
			if err := each(l); err != nil {
				return err
			}
		}
		if !page.Truncated {
			return s.end(ctx)
		}
		if next := aws.ToString(page.NextMarker); next == "" || next == aws.ToString(in.Marker) {
			return failf(signer.Corrupt, "%s: the answer says that there are more and not where", opList)
		}
		in.Marker = page.NextMarker
	}
}

// search is one pass over all keys.
type search struct {
	b        *Backend
	patience time.Duration
	began    time.Time
	seen     map[string]bool
	read     int
	skipped  int
	denied   error // the last of them
}

// look reads the keys of a page, some at a time, and returns zonemint's in their
// order. Those that earlier passes have found to be others' are left out.
func (s *search) look(ctx context.Context, page []types.KeyListEntry) (found []labelled, err error) {
	var ids []string
	for _, entry := range page {
		id := aws.ToString(entry.KeyId)
		if _, foreign := s.b.foreign.Load(id); foreign {
			s.read++
		} else if id != "" && !s.seen[id] {
			ids = append(ids, id)
		}
		s.seen[id] = true
	}
	keys := make([]*labelled, len(ids))
	errs := make([]error, len(ids))
	group, within := errgroup.WithContext(ctx)
	group.SetLimit(atOnce)
	for i, id := range ids {
		group.Go(func() error {
			keys[i], errs[i] = s.key(within, id)
			return s.mayGoOn(errs[i])
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	for i, key := range keys {
		if errs[i] != nil {
			s.note(errs[i])
			continue
		}
		s.read++
		if key != nil {
			found = append(found, *key)
		}
	}
	return found, nil
}

// key reads one key. It is nil if it is somebody else's, or waits for its deletion.
func (s *search) key(ctx context.Context, id string) (*labelled, error) {
	const op = "look for keys in AWS KMS"
	var key *types.KeyMetadata
	err := s.b.patiently(ctx, s.patience-time.Since(s.began), func() (err error) {
		key, err = s.b.read(ctx, op, id)
		return err
	})
	if codeOf(err) == signer.NotFound && s.patience > 0 {
		return nil, failf(signer.Unavailable, "%s: the key %s is listed and cannot be read yet, and may be the one: %w", op, id, err)
	}
	if err != nil {
		return nil, err
	}
	spec, is := parseDescription(aws.ToString(key.Description))
	if !is { // at once: what a pass that fails has learned, the next one need not
		s.b.foreign.Store(id, true)
	}
	if !is || isDoomed(key) {
		return nil, nil //nolint:nilnil // there is nothing to find
	}
	return &labelled{key, spec}, nil
}

// mayGoOn says which failures to read one key do not end the pass: it was deleted
// meanwhile or is too new, or it is somebody else's business.
func (s *search) mayGoOn(err error) error {
	if codeOf(err) != signer.Denied {
		if codeOf(err) == signer.NotFound {
			return nil
		}
		return err
	}
	if s.b.opts.SkipUnreadableKeys && signer.MissingPermission(err) != "" {
		return nil
	}
	return fmt.Errorf("%w; %s", err, readEvery)
}

func (s *search) note(err error) {
	if codeOf(err) == signer.Denied {
		s.skipped++
		s.denied = err
	}
}

// end refuses a pass that could read nothing at all.
func (s *search) end(ctx context.Context) error {
	switch {
	case s.skipped == 0:
		return nil
	case s.read == 0:
		return fmt.Errorf("%w; %s", s.denied, readEvery)
	default:
		s.b.log.WarnContext(ctx, "keys in AWS KMS that cannot be read were passed over", slog.Int("keys", s.skipped), slog.Any("error", s.denied))
		return nil
	}
}
