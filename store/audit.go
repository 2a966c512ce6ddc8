package store

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/google/uuid"
)

// Actor is who does something, as the audit remembers it.
type Actor struct {
	Name      string // "api-token/<id>", "cli/<user>", "replica/<id>"
	RequestID string // empty outside of requests
	// TokenID is the API token that the actor showed, uuid.Nil if it needs
	// none. An act is refused if the API token is not good any more when the
	// act is committed, however long ago it was looked at.
	TokenID uuid.UUID
}

// AuditEvent is an administrative act. It is written in the transaction of the
// act itself, so neither exists without the other.
type AuditEvent struct {
	ID        uuid.UUID
	At        time.Time // the database's clock
	Actor     string
	Action    string // "keyset.create", "signing-key.activate", …
	Target    string
	Detail    string // a JSON object
	RequestID string
}

// AuditFilter selects audit events; what is zero matches all.
type AuditFilter struct {
	ActionPrefix string // "signing-key."
	Actor        string
	After        time.Time // at it or after it
	Before       time.Time
}

func newEvent(by Actor, d deed, now time.Time) (AuditEvent, error) {
	if d.detail == nil {
		d.detail = map[string]any{}
	}
	text, err := json.Marshal(d.detail)
	if err != nil {
		return AuditEvent{}, fmt.Errorf("audit detail of %s: %w", d.action, err)
	}
	id, err := uuid.NewV7()
	if err != nil {
		return AuditEvent{}, fmt.Errorf("audit event ID: %w", err)
	}
	return AuditEvent{
		ID: id, At: now, Actor: by.Name, Action: d.action, Target: d.target, Detail: string(text), RequestID: by.RequestID,
	}, nil
}
