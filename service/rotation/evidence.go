package rotation

import (
	"fmt"
	"slices"
	"time"

	"github.com/zonemint/zonemint/store"
)

// Activation returns the step that lets a key sign as soon as every verifier can
// know it, whether or not somebody wants it.
func Activation(l *store.Lifecycle, r Rules, k store.SigningKey) Step {
	s := Step{Kind: Activate, Serial: k.Serial, KID: k.KID, At: l.Now, role: k.Role}
	switch {
	case l.Keyset.Distribution != store.DistributionJWKS:
	case fromTheStart(l, k):
		s.Evidence = append(s.Evidence, "in every JWK set since the keyset's first key signed")
	default:
		wait := cacheTime(l) + r.Skew
		s.At = k.PublishedAt.Add(wait)
		s.Evidence = append(s.Evidence, fmt.Sprintf(
			"published at %s; caches may hold older sets for %s", k.PublishedAt.Format(time.RFC3339), wait))
	}
	replicas(l, &s)
	consumers(l, k, &s)
	return s
}

// fromTheStart says whether a key is one that the keyset began with and was published
// before any signed. Every set that a verifier may have kept has it then: while no
// key signs, sets are served with max-age=0. The rows of those keys are as old as that
// of the keyset; by the times alone, a clock that was put back could make others pass.
func fromTheStart(l *store.Lifecycle, k store.SigningKey) bool {
	return k.CreatedAt.Equal(l.Keyset.CreatedAt) && l.Series.HasSigned() && !k.PublishedAt.After(l.Series.SignedSince)
}

// cacheTime is how long after a change some verifier may still be using an older
// JWK set: one that a replica without word from the database served at the end
// of its lease, for as long as it may be kept.
func cacheTime(l *store.Lifecycle) time.Duration {
	var most time.Duration
	for _, r := range l.Replicas {
		most = max(most, r.LeaseTTL+r.CacheFor)
	}
	return most
}

// BelievedFor is how long after a key was distrusted some verifier may still
// accept it.
func BelievedFor(l *store.Lifecycle, r Rules) time.Duration { return cacheTime(l) + r.Skew }

// replicas wants every live replica to serve the set as it is now.
func replicas(l *store.Lifecycle, s *Step) {
	live := 0
	for _, r := range l.Replicas {
		if !r.LeaseUntil.After(l.Now) {
			continue // it serves with max-age=0, and signs nothing
		}
		if r.Generation < l.Generation {
			s.Held = append(s.Held, Hold{Replica: true, Text: fmt.Sprintf(
				"replica %s has not loaded the present key ring (it has generation %d, the ring is at %d)", nameOf(r), r.Generation, l.Generation)})
			continue
		}
		live++
	}
	text := fmt.Sprintf("%d live replicas serve it", live)
	if live == 1 {
		text = "1 live replica serves it"
	}
	s.Evidence = append(s.Evidence, text)
}

func nameOf(r store.ReplicaLease) string { return fmt.Sprintf("%s (%.8s)", r.Name, r.ID) }

// consumers wants every consumer that the keyset names to have the key.
func consumers(l *store.Lifecycle, k store.SigningKey, s *Step) {
	names := l.Keyset.Policy.Consumers
	if len(names) == 0 && l.Keyset.Distribution == store.DistributionKumaSync {
		s.Held = append(s.Held, Hold{Text: fmt.Sprintf(
			"the keyset names no consumer that would acknowledge its keys: run `zonemint keyset update %s --consumer NAME`", l.Keyset.Name)})
	}
	for _, name := range names {
		if at, ok := Acknowledged(l, name, k.KID); ok {
			s.Evidence = append(s.Evidence, fmt.Sprintf("consumer %s acknowledged it at %s", name, at.Format(time.RFC3339)))
		} else {
			s.Held = append(s.Held, Hold{Text: fmt.Sprintf("consumer %s has not acknowledged %s", name, k.KID)})
		}
	}
}

// Acknowledged says whether a consumer has a key, and when it last said what it
// has; zero if it never did.
func Acknowledged(l *store.Lifecycle, consumer, kid string) (time.Time, bool) {
	i := slices.IndexFunc(l.Acks, func(a store.Acknowledgement) bool { return a.Consumer == consumer })
	if i < 0 {
		return time.Time{}, false
	}
	return l.Acks[i].AckedAt, slices.Contains(l.Acks[i].KIDs, kid)
}
