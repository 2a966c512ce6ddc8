package service

import (
	"context"
	"errors"
	"time"

	"connectrpc.com/connect"
	"github.com/google/uuid"

	pb "github.com/zonemint/zonemint/proto/zonemint/v1"
	"github.com/zonemint/zonemint/service/caller"
	"github.com/zonemint/zonemint/service/keyring"
	"github.com/zonemint/zonemint/store"
)

// streamPage bounds the entries of a page, which has less than 1 MiB with it: a
// jti has 255 bytes at the most.
const streamPage = 1000

func (s revocationService) WatchRevocations(ctx context.Context, req *pb.WatchRevocationsRequest, stream *connect.ServerStream[pb.WatchRevocationsResponse]) error {
	who := callerOf(ctx)
	ks, err := s.visible(who, req.GetKeyset())
	if err != nil {
		return err
	}
	from, err := feedPosition(req.GetEpoch(), req.GetSince())
	if err != nil {
		return err
	}
	end, err := s.last(who, "stream", maxStreams)
	if err != nil {
		return err
	}
	defer end()
	w := watch{Service: s.Service, who: who, keyset: ks, at: from, send: stream.Send}
	return w.run(ctx)
}

// feedPosition returns the position of a reader. One without an epoch has nothing.
func feedPosition(epoch string, since int64) (store.FeedPosition, error) {
	if epoch == "" {
		return store.FeedPosition{}, nil
	}
	id, err := uuid.Parse(epoch)
	if err != nil {
		return store.FeedPosition{}, &invalid{"epoch", "is not one that this call returned"}
	}
	return store.FeedPosition{Epoch: id, Seq: since}, nil
}

// watch is one stream of a keyset's feed.
type watch struct {
	*Service
	who    caller.Caller
	keyset *keyring.Keyset
	at     store.FeedPosition // what the reader has
	more   bool               // there is more already
	caught bool               // the reader has had everything once
	send   func(*pb.WatchRevocationsResponse) error
}

func (w *watch) run(ctx context.Context) error {
	alive := time.NewTicker(w.cfg.SignOfLife)
	defer alive.Stop()
	for {
		changed := w.feed.Changed(w.keyset.ID) // before reading, so that nothing falls in between
		if err := w.catchUp(ctx); err != nil {
			return err
		}
		if w.more {
			changed = always()
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-w.ending:
			return errEnding
		case <-alive.C:
			if err := w.signOfLife(ctx, changed); err != nil {
				return err
			}
		case <-changed:
		}
	}
}

// always returns a channel that one need not wait for.
func always() <-chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}

// catchUp sends the next page, if there is one. Until the reader has had
// everything once the pages are the database's: only it can tell whether the
// reader's position exists, and what this replica remembers may end before
// something that was revoked before the stream began. Of those there is at least
// one, so that the reader knows where it is.
func (w *watch) catchUp(ctx context.Context) error {
	read := w.feed.Read
	if !w.caught {
		read = w.feed.ReadStore
	}
	page, err := read(ctx, w.keyset.ID, w.at, streamPage)
	if err != nil {
		return err
	}
	w.more = page.More
	if w.caught && !page.Reset && page.Epoch == w.at.Epoch && page.Seq == w.at.Seq {
		return nil
	}
	w.at, w.caught = store.FeedPosition{Epoch: page.Epoch, Seq: page.Seq}, w.caught || !page.More
	return w.send(pageToProto(page))
}

// signOfLife looks again whether the reader may stay, and tells it that it has
// everything, if that is so.
func (w *watch) signOfLife(ctx context.Context, changed <-chan struct{}) error {
	err := w.callers.Again(ctx, w.who, w.cfg.SignOfLife)
	if errors.Is(err, caller.ErrUnauthenticated) || ctx.Err() != nil {
		return err
	}
	select {
	case <-changed:
		return nil // a page is about to say more
	default:
	}
	switch age := w.feed.Age(); {
	case age > w.cfg.LeaseTTL:
		return errNoLease // another replica may know more
	case age > w.cfg.SignOfLife+w.cfg.FeedInterval:
		return nil // it would be a lie
	}
	return w.send(&pb.WatchRevocationsResponse{Epoch: w.at.Epoch.String(), Seq: w.at.Seq})
}

func pageToProto(p store.FeedPage) *pb.WatchRevocationsResponse {
	out := &pb.WatchRevocationsResponse{Epoch: p.Epoch.String(), Seq: p.Seq, Reset_: p.Reset, More: p.More}
	for _, e := range p.Entries {
		if e.LiftedAt.IsZero() {
			out.Revoked = append(out.Revoked, &pb.RevokedToken{Jti: e.JTI, Exp: wholeSeconds(e.ExpiresAt).Unix()})
		} else {
			out.Lifted = append(out.Lifted, e.JTI)
		}
	}
	return out
}
