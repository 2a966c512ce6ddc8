package store

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
)

// Issuance is a row of the ledger: one token that was, or may have been, given
// out.
type Issuance struct {
	JTI       uuid.UUID // UUIDv7, of about IssuedAt
	KeysetID  uuid.UUID
	Serial    int
	Subject   string // the zone, the dataplane's name, the user
	Scopes    string // a JSON array
	IssuedAt  time.Time
	ExpiresAt time.Time
	Caller    string
	Writer    uuid.UUID
	Batch     int64

	// Not stored, checked when the row is recorded:
	KeyID       uuid.UUID // the signing key
	CallerToken uuid.UUID // the API token, uuid.Nil if the caller has another credential
}

// LedgerBatch is a set of rows recorded together, a link in its writer's chain.
type LedgerBatch struct {
	Writer   uuid.UUID
	Batch    int64 // 1, 2, 3 … within the writer
	Rows     []Issuance
	RowCount int
	FirstJTI uuid.UUID
	LastJTI  uuid.UUID
	Hash     []byte
	MAC      []byte

	Keys    []KeyUse
	Callers []uuid.UUID
}

// KeyUse is a signing key that a batch has rows of.
type KeyUse struct {
	ID        uuid.UUID
	MaxExpiry time.Time
	MinIssued time.Time
}

// Refused names what stood in the way of a batch. If it is empty the batch was
// recorded; otherwise nothing was.
type Refused struct {
	Keys    []uuid.UUID // may not sign, or not any more what was issued that long ago
	Callers []uuid.UUID // may not call
}

// Empty says that nothing was refused.
func (r Refused) Empty() bool { return len(r.Keys) == 0 && len(r.Callers) == 0 }

// Link is a writer's position in its chain of batches. The zero Link begins no
// chain; use [NewChain].
type Link struct {
	Writer uuid.UUID
	Batch  int64
	Hash   []byte
}

// NewChain begins a chain. A process begins one when it starts, and another one
// whenever it does not know whether its last batch was written.
func NewChain() (Link, error) {
	id, err := uuid.NewV7()
	if err != nil {
		return Link{}, fmt.Errorf("writer ID: %w", err)
	}
	return Link{Writer: id}, nil
}

// Record writes rows to the ledger, all or none, as the batch that follows at,
// and returns the new position. rows are sorted by JTI in place.
func (d *DB) Record(ctx context.Context, at Link, rows []Issuance) (Link, Refused, error) {
	if len(rows) == 0 {
		return at, Refused{}, errNoRows
	}
	batch := LedgerBatch{Writer: at.Writer, Batch: at.Batch + 1, Rows: rows}
	if err := d.prepare(&batch, at.Hash); err != nil {
		return at, Refused{}, err
	}
	refused, err := d.engine.AppendLedger(ctx, batch)
	if err != nil || !refused.Empty() {
		return at, refused, err
	}
	return Link{Writer: at.Writer, Batch: batch.Batch, Hash: batch.Hash}, refused, nil
}

func (d *DB) prepare(b *LedgerBatch, prev []byte) (err error) {
	slices.SortFunc(b.Rows, func(a, b Issuance) int { return bytes.Compare(a.JTI[:], b.JTI[:]) })
	for i := range b.Rows {
		r := &b.Rows[i]
		if err := r.check(); err != nil {
			return err
		}
		r.Writer, r.Batch = b.Writer, b.Batch
		b.useKey(r)
		if r.CallerToken != uuid.Nil && !slices.Contains(b.Callers, r.CallerToken) {
			b.Callers = append(b.Callers, r.CallerToken)
		}
	}
	b.RowCount, b.FirstJTI, b.LastJTI = len(b.Rows), b.Rows[0].JTI, b.Rows[len(b.Rows)-1].JTI
	b.Hash = b.chainHash(prev)
	b.MAC, err = d.seal.seal(b.encoding())
	return err
}

// check refuses a row that a database would keep in another form than the one
// that is hashed, or not at all.
func (r *Issuance) check() error {
	if err := checkText(r.Subject, r.Scopes, r.Caller); err != nil {
		return fmt.Errorf("ledger row %s: %w", r.JTI, err)
	}
	return nil
}

// checkText refuses text that not every database can keep.
func checkText(texts ...string) error {
	for _, text := range texts {
		if !utf8.ValidString(text) || strings.Contains(text, "\x00") {
			return fmt.Errorf("text with a zero byte or invalid UTF-8: %w", ErrRejected)
		}
	}
	return nil
}

func (b *LedgerBatch) useKey(r *Issuance) {
	i := slices.IndexFunc(b.Keys, func(k KeyUse) bool { return k.ID == r.KeyID })
	if i < 0 {
		b.Keys = append(b.Keys, KeyUse{ID: r.KeyID, MaxExpiry: r.ExpiresAt, MinIssued: r.IssuedAt})
		return
	}
	k := &b.Keys[i]
	if r.ExpiresAt.After(k.MaxExpiry) {
		k.MaxExpiry = r.ExpiresAt
	}
	if r.IssuedAt.Before(k.MinIssued) {
		k.MinIssued = r.IssuedAt
	}
}

func (b *LedgerBatch) chainHash(prev []byte) []byte {
	e := encodingOf("ledger").bytes(prev)
	for i := range b.Rows {
		r := &b.Rows[i]
		e.id(r.JTI).id(r.KeysetID).num(int64(r.Serial)).text(r.Subject).text(r.Scopes).
			time(r.IssuedAt).time(r.ExpiresAt).text(r.Caller)
	}
	sum := sha256.Sum256(e.buf)
	return sum[:]
}

func (b *LedgerBatch) encoding() *encoding {
	return encodingOf("ledger_batches").id(b.Writer).num(b.Batch).num(int64(b.RowCount)).
		id(b.FirstJTI).id(b.LastJTI).bytes(b.Hash)
}

// Issuance returns the ledger's row of a token.
func (d *DB) Issuance(ctx context.Context, jti uuid.UUID) (row Issuance, err error) {
	err = d.engine.View(ctx, func(tx Tx) (err error) {
		row, err = tx.Issuance(ctx, jti)
		return err
	})
	return row, err
}

// LedgerCheck is the result of [DB.CheckLedger].
type LedgerCheck struct {
	Writers int
	Batches int64
	Rows    int64
	// Pruned counts batches that retention has taken rows from. Their MAC was
	// checked, their hash could not be.
	Pruned int64
	Faults []string

	horizon time.Time // rows from before may have been forgotten
}

// CheckLedger reads the whole ledger and checks every chain: that the batches
// of a writer have no gaps, carry the writer's MAC, and hold the rows they were
// recorded with. Batches older than retention may lack rows. progress is called
// now and then. Batches that were cut off the end of a chain cannot be noticed.
func (d *DB) CheckLedger(ctx context.Context, retention time.Duration, progress func(LedgerCheck)) (LedgerCheck, error) {
	var c LedgerCheck
	err := d.engine.View(ctx, func(tx Tx) error {
		now, err := tx.Now(ctx)
		if err != nil {
			return err
		}
		c.horizon = now.Add(-retention)
		writers, err := tx.LedgerWriters(ctx)
		if err != nil {
			return err
		}
		for _, w := range writers {
			c.Writers++
			if err := d.checkChain(ctx, tx, w, &c, progress); err != nil {
				return fmt.Errorf("writer %s: %w", w, err)
			}
		}
		return nil
	})
	return c, err
}

func (d *DB) checkChain(ctx context.Context, tx Tx, writer uuid.UUID, c *LedgerCheck, progress func(LedgerCheck)) error {
	const page = 500
	at := Link{Writer: writer}
	for {
		batches, err := tx.LedgerBatches(ctx, writer, at.Batch, page)
		if err != nil {
			return err
		}
		for i := range batches {
			if err := d.checkBatch(ctx, tx, &batches[i], at, c); err != nil {
				return err
			}
			at.Batch, at.Hash = batches[i].Batch, batches[i].Hash
		}
		progress(*c)
		if len(batches) < page {
			return nil
		}
	}
}

func (d *DB) checkBatch(ctx context.Context, tx Tx, b *LedgerBatch, at Link, c *LedgerCheck) (err error) {
	c.Batches++
	fault := func(what string) {
		c.Faults = append(c.Faults, fmt.Sprintf("batch %d of writer %s: %s", b.Batch, b.Writer, what))
	}
	if b.Batch != at.Batch+1 {
		fault(fmt.Sprintf("follows batch %d", at.Batch))
	}
	if d.seal.check(b.encoding(), b.MAC, "") != nil {
		fault("does not match its MAC")
	}
	if b.Rows, err = tx.BatchRows(ctx, *b); err != nil {
		return err
	}
	c.Rows += int64(len(b.Rows))
	switch {
	case len(b.Rows) < b.RowCount && jtiTime(b.FirstJTI).Before(c.horizon):
		c.Pruned++
	case len(b.Rows) != b.RowCount:
		fault(fmt.Sprintf("has %d rows, was recorded with %d", len(b.Rows), b.RowCount))
	case !bytes.Equal(b.chainHash(at.Hash), b.Hash):
		fault("its rows are not those it was recorded with")
	}
	return nil
}

// errNoRows guards against a batch without rows, which would have no first JTI.
var errNoRows = errors.New("a batch needs rows")

// jtiTime returns the time in a UUIDv7 (RFC 9562 section 5.7), to the millisecond.
func jtiTime(id uuid.UUID) time.Time {
	ms := int64(id[0])<<40 | int64(id[1])<<32 | int64(id[2])<<24 | int64(id[3])<<16 | int64(id[4])<<8 | int64(id[5])
	return time.UnixMilli(ms)
}

// FirstJTI returns the least UUIDv7 of a moment: the bound between ledger rows
// from before it and from after it.
func FirstJTI(t time.Time) uuid.UUID {
	var id uuid.UUID
	ms := t.UnixMilli()
	for i := range 6 {
		id[i] = byte(ms >> (40 - 8*i))
	}
	return id
}
