package storetest

import (
	"context"

	"github.com/zonemint/zonemint/store"
)

// Move takes a key to a state, as a step of a rotation does.
func Move(ctx context.Context, db *store.DB, k store.SigningKey, to store.State, reason string) (store.SigningKey, error) {
	_, err := db.ChangeKeys(ctx, k.KeysetID, someone, func(*store.Lifecycle) (store.Change, error) {
		return store.Change{Moves: []store.Move{{Serial: k.Serial, To: to, Reason: reason}}}, nil
	})
	if err != nil {
		return k, err
	}
	return db.SigningKey(ctx, k.KeysetID, k.Serial)
}
