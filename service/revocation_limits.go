package service

import (
	"context"
	"errors"
	"time"

	"github.com/zonemint/zonemint/service/caller"
)

const (
	// maxStreams and maxLists are how many lasting responses an API token may have
	// at the same time, for each holds memory and a connection for as long as its
	// reader likes.
	maxStreams = 100
	maxLists   = 4
	// listTime bounds the whole of a list.
	listTime = 10 * time.Minute
)

// errSearches and errLasting: there are too many at the same time.
var (
	errSearches = errors.New("too many searches of the ledger are under way; try again later")
	errLasting  = errors.New("this API token has too many streams or lists open; close some")
)

// search waits for its turn and does what searches the ledger. Such reads may take
// long, and all together they would take every connection to the database.
func search[T any](ctx context.Context, s *Service, do func() (T, error)) (T, error) {
	leave, err := s.feed.SearchTurn(ctx)
	if err != nil {
		var none T
		if errors.Is(err, context.DeadlineExceeded) {
			err = errSearches
		}
		return none, err
	}
	defer leave()
	return do()
}

// last begins a lasting response, of which the caller may have only so many.
func (s *Service) last(who caller.Caller, kind string, most int) (end func(), err error) {
	end, ok := s.callers.Begin(who, kind, most)
	if !ok {
		return nil, errLasting
	}
	return end, nil
}
