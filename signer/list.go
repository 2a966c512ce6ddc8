package signer

import (
	"context"
	"time"
)

// Labelled is a key that a backend holds, as [List] shows it: enough to tell
// whether a row of the database knows the key, and to say to a person what it
// is if none does.
type Labelled struct {
	Label     string    // of the [Spec] that the key was created with
	Ref       Ref       // what Create returned, or should have
	Keyset    string    // empty if the backend does not store it
	Serial    int       // 0 if the backend does not store it
	CreatedAt time.Time // by the backend's clock; zero if it does not say
}

// List calls each for every key in b that carries a label of zonemint, in no
// particular order; see [Backend] for what a listing may miss. It ends with the
// first error of each, which is returned as it is and not as an [Error]: a
// caller can tell what it said itself from what the backend says. each must not
// call b.
func List(ctx context.Context, b Backend, each func(Labelled) error) error {
	const op = "list"
	if err := ctx.Err(); err != nil {
		return coded(ctx, op, b, err)
	}
	var stop error // kept here, because SDKs wrap what a callback returns, or drop it
	err := b.List(ctx, func(l Labelled) error {
		if stop == nil {
			stop = each(l)
		}
		return stop
	})
	if stop != nil {
		return stop
	}
	return coded(ctx, op, b, err)
}
