package store

import "context"

// Topic is something that changes in the database and that replicas watch.
type Topic string

// The topics.
const (
	TopicRing        Topic = "ring"        // keysets and signing keys
	TopicRevocations Topic = "revocations" // the revocation feeds
)

// Topics returns all topics.
func Topics() []Topic { return []Topic{TopicRing, TopicRevocations} }

// Watch calls wake with a topic soon after a transaction that notified of it was
// committed, by this process or another one on the same database, and with each
// topic whenever it has connected, at first and again: something may have been
// missed meanwhile. It reconnects by itself and returns when ctx ends, with its
// error.
//
// Notifications are hints. Several of one topic may arrive as one, and while the
// connection is down, which it can be for some seconds without anybody noticing,
// none arrive: who watches looks for itself now and then. Wake is called by one
// goroutine at a time and must return quickly.
func (d *DB) Watch(ctx context.Context, wake func(Topic)) error { return d.engine.Watch(ctx, wake) }

// changed makes the ring's next generation, in the transaction that changes
// keysets or keys, and tells those who watch the ring once it has committed.
func (d *DB) changed(ctx context.Context, tx Tx) (generation int64, err error) {
	if generation, err = tx.BumpGeneration(ctx); err != nil {
		return 0, err
	}
	return generation, tx.Notify(ctx, TopicRing)
}
