package service

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"

	pb "github.com/zonemint/zonemint/proto/zonemint/v1"
	"github.com/zonemint/zonemint/service/caller"
	"github.com/zonemint/zonemint/service/keyring"
	"github.com/zonemint/zonemint/service/ledger"
	"github.com/zonemint/zonemint/signer"
	"github.com/zonemint/zonemint/store"
)

// batchSigners is how many tokens of a batch are signed at the same time. A
// backend with fewer sessions bounds it itself.
const batchSigners = 8

// perSignature is what each further token of a batch adds to the patience with a backend.
const perSignature = 20 * time.Millisecond

// result is what became of an item of a batch.
type result struct {
	issued
	err error
}

// issueBatch makes a token for each item, with one row set for all of them.
func (s *Service) issueBatch(ctx context.Context, who caller.Caller, items []*pb.IssueTokensItem) []result {
	results := make([]result, len(items))
	all := make([]int, len(items))
	for i := range all {
		all[i] = i
	}
	var failed exclusions
	for attempt, again := 0, all; len(again) > 0 && attempt <= refusals; attempt++ {
		seen := s.ring.Load().Generation
		s.tryBatch(ctx, who, items, again, results, failed)
		elsewhere := failed.addAll(results)
		if again = refusedKeys(results); len(again) > 0 && s.ring.RefreshPast(ctx, seen) != nil {
			again = nil
		}
		again = append(again, elsewhere...)
	}
	for i := range results {
		_ = s.noted(who, results[i].err)
	}
	return results
}

// refusedKeys returns the indexes of the items whose key may not sign any more.
func refusedKeys(results []result) (again []int) {
	for i := range results {
		if errors.Is(results[i].err, ledger.ErrKeyRefused) {
			again = append(again, i)
		}
	}
	return again
}

// tryBatch issues the items with the given indexes and sets their results.
func (s *Service) tryBatch(ctx context.Context, who caller.Caller, items []*pb.IssueTokensItem, indexes []int, results []result, failed exclusions) {
	ring := s.ring.Load()
	begun := make([]*pending, 0, len(indexes))
	at := make([]int, 0, len(indexes))
	rows := make([]store.Issuance, 0, len(indexes))
	for _, i := range indexes {
		p, err := s.beginItem(ctx, ring, who, items[i], failed)
		results[i] = result{err: err}
		if err == nil {
			begun, at, rows = append(begun, p), append(at, i), append(rows, p.row)
		}
	}
	if len(begun) == 0 {
		return
	}
	ticket, err := s.ledger.Submit(rows)
	if err != nil {
		for _, i := range at {
			results[i].err = err
		}
		return
	}
	s.signAll(ctx, begun, at, results)
	rowErrs, err := ticket.Wait(ctx)
	for n, i := range at {
		switch {
		case err != nil:
			results[i] = result{err: err}
		case rowErrs != nil && rowErrs[n] != nil:
			results[i] = result{err: fmt.Errorf("recording: %w", rowErrs[n])}
		}
	}
}

func (s *Service) beginItem(ctx context.Context, ring *keyring.Snapshot, who caller.Caller, item *pb.IssueTokensItem, failed exclusions) (*pending, error) {
	req, w, err := wantedOf(item)
	if err != nil {
		return nil, err
	}
	if err := s.validator.Validate(req); err != nil {
		return nil, err
	}
	if faults := w.Faults(); len(faults) > 0 {
		return nil, faulty(faults)
	}
	d, err := w.draft(ring, who)
	if err != nil {
		return nil, err
	}
	return s.begin(ctx, who, d, failed)
}

// wantedOf returns the request in an item and what it says.
func wantedOf(item *pb.IssueTokensItem) (proto.Message, wanted, error) {
	switch p := item.GetProfile().(type) {
	case *pb.IssueTokensItem_Zone:
		return p.Zone, wantedZone(p.Zone), nil
	case *pb.IssueTokensItem_Dataplane:
		return p.Dataplane, wantedDataplane(p.Dataplane), nil
	case *pb.IssueTokensItem_User:
		return p.User, wantedUser(p.User), nil
	default:
		return nil, wanted{}, &invalid{"profile", "say which token is wanted, for example \"zone\""}
	}
}

// signAll signs tokens side by side and sets their results. What a backend signs
// in one call is one job.
func (s *Service) signAll(ctx context.Context, begun []*pending, at []int, results []result) {
	jobs := signingJobs(begun)
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(batchSigners, len(jobs)) {
		wg.Go(func() {
			for n := int(next.Add(1)) - 1; n < len(jobs); n = int(next.Add(1)) - 1 {
				s.signJob(ctx, jobs[n], begun, at, results)
			}
		})
	}
	wg.Wait()
	// When all are done: what some of them met may be a reason to begin all of those
	// that failed again.
	for n, i := range at {
		if err := results[i].err; err != nil {
			p := begun[n]
			results[i].err = fmt.Errorf("signing with %s: %w", p.key.KID, s.again(ctx, p.keyset, p.key, err))
		}
	}
}

// signingJobs says which tokens are signed together, by their indexes: those of one
// key, if its backend can do that.
func signingJobs(begun []*pending) (jobs [][]int) {
	open := map[*keyring.Active]int{} // the job of a key that takes more
	for i, p := range begun {
		job, ok := open[p.key]
		if !ok {
			job, jobs = len(jobs), append(jobs, nil)
			if p.key.SignsBatches() {
				open[p.key] = job
			}
		}
		jobs[job] = append(jobs[job], i)
	}
	return jobs
}

func (s *Service) signJob(ctx context.Context, job []int, begun []*pending, at []int, results []result) {
	first := begun[job[0]]
	key, patience := first.key, first.patience
	if patience > 0 {
		patience += time.Duration(len(job)-1) * perSignature
	}
	inputs := make([][]byte, len(job))
	for n, i := range job {
		inputs[n] = begun[i].signingInput()
	}
	signed := key.SignJWSBatch(hurried(ctx, patience), inputs)
	s.learn(first.keyset, key, failureOf(signed))
	for n, r := range signed {
		i := job[n]
		if r.Err != nil {
			results[at[i]] = result{err: r.Err}
			continue
		}
		results[at[i]] = result{issued: begun[i].signed(inputs[n], r.Signature)}
	}
}

// failureOf is how a call for a batch failed: as all of its parts did.
func failureOf(signed []signer.BatchResult) error {
	for _, r := range signed {
		if r.Err == nil {
			return nil
		}
	}
	return signed[0].Err
}
