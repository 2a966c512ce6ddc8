package command

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"

	"connectrpc.com/connect"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/zonemint/zonemint/kuma"
	pb "github.com/zonemint/zonemint/proto/zonemint/v1"
)

const (
	// revokers is how many revocations are under way at once.
	revokers = 8
	// tellEvery is after how many revocations the progress is shown.
	tellEvery = 1000
	// maxRefused is how many IDs are named that the server does not take.
	maxRefused = 10
)

// importedList says what became of the revocations of a keyset's tokens.
type importedList struct {
	Keyset  string   `json:"keyset"`
	Secrets []string `json:"secrets"`
	Listed  int      `json:"listed"`
	Known   int      `json:"known"`
	Revoked int      `json:"revoked"` // with --dry-run: would be
	Refused []string `json:"refused,omitempty"`
	Error   string   `json:"error,omitempty"`

	err error
}

// revocations takes over the lists of revoked tokens. There are none, or one
// result for all lists of the keyset.
func (t *takeover) revocations(ctx context.Context, ks keysetKeys, secrets []kuma.Secret) []importedList {
	done := importedList{Keyset: ks.GetName(), Secrets: []string{}}
	refs, err := kuma.RevocationSecrets(profileOf(ks.Keyset), meshOf(ks.Keyset))
	if err != nil {
		return []importedList{{Keyset: ks.GetName(), Error: err.Error(), err: err}}
	}
	var ids kuma.List
	for _, s := range secrets {
		if slices.Contains(refs, s.Ref) {
			done.Secrets = append(done.Secrets, s.String())
			ids = kuma.ParseList(strings.Join(ids, ",") + "," + string(s.Data)) // two lists may have IDs in common
		}
	}
	if len(done.Secrets) == 0 {
		return nil
	}
	done.Listed = len(ids)
	if err := t.revoke(ctx, ids, &done); err != nil {
		done.Error, done.err = err.Error(), err
	}
	return []importedList{done}
}

// revoke revokes what zonemint does not know of yet. What was lifted there stays
// so.
func (t *takeover) revoke(ctx context.Context, ids kuma.List, done *importedList) error {
	if len(ids) == 0 {
		return nil
	}
	known := map[string]bool{}
	err := eachRevocation(ctx, t.client, done.Keyset, func(r *pb.Revocation) bool {
		known[r.GetJti()] = true
		return true
	})
	if err != nil {
		return err
	}
	todo := slices.DeleteFunc(slices.Clone(ids), func(id string) bool { return known[id] })
	done.Known = len(ids) - len(todo)
	if t.dryRun {
		done.Revoked = len(todo)
		return nil
	}
	if err := t.revokeAll(ctx, todo, done); err != nil {
		return fmt.Errorf("at least %d of %d tokens were revoked, do it again to go on: %w", done.Revoked, len(todo), err)
	}
	if n := len(done.Refused); n > 0 {
		return fmt.Errorf("%d of the IDs cannot be revoked:\n%s", n, strings.Join(done.Refused[:min(n, maxRefused)], "\n"))
	}
	return nil
}

func (t *takeover) revokeAll(ctx context.Context, ids kuma.List, done *importedList) error {
	var revoked, lifted atomic.Int64
	refused := make([]string, len(ids))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(revokers)
	for i, id := range ids {
		g.Go(func() error {
			err := t.revokeOne(ctx, done, id)
			switch {
			case errors.Is(err, errLifted):
				lifted.Add(1)
			case connect.CodeOf(err) == connect.CodeInvalidArgument: // no reason to leave the others valid
				refused[i] = fmt.Sprintf("%.64q: %v", id, err)
			case err != nil:
				return err
			default:
				if n := revoked.Add(1); n%tellEvery == 0 {
					t.tell("keyset %s: %d of %d tokens revoked", done.Keyset, n, len(ids))
				}
			}
			return nil
		})
	}
	err := g.Wait()
	done.Revoked = int(revoked.Load())
	done.Refused = slices.DeleteFunc(refused, func(s string) bool { return s == "" })
	if n := int(lifted.Load()); n > 0 {
		done.Known += n
		t.tell("keyset %s: of the listed tokens, %d have been taken back here (zonemint revocation lift), and stay so", done.Keyset, n)
	}
	return err
}

// errLifted is about revocations that somebody has taken back.
var errLifted = errors.New("was taken back")

// revokeOne revokes one token, unless its revocation was taken back, of which the
// list of revocations has nothing.
func (t *takeover) revokeOne(ctx context.Context, done *importedList, id string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	resp, err := t.client.revocations.GetRevocation(ctx, &pb.GetRevocationRequest{Keyset: done.Keyset, Jti: id})
	switch {
	case err == nil && resp.GetRevocation().GetLiftedAt() != nil:
		return errLifted
	case err != nil && connect.CodeOf(err) != connect.CodeNotFound:
		return err
	}
	_, err = t.client.revocations.RevokeToken(ctx, &pb.RevokeTokenRequest{
		Jti: id, Keyset: done.Keyset, ExpiresAt: timestamppb.New(t.until),
		Reason: fmt.Sprintf("imported from %.400s of a control plane", done.Secrets[0]),
	})
	return err
}
