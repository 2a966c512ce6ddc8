package service

import "time"

// sample is one reading of the database's clock.
type sample struct {
	db   time.Time     // what it showed
	mono time.Time     // when, on the monotonic clock
	give time.Duration // by how much that may be wrong, either way
}

// measure takes the database to have read its clock in the middle of a call. It
// may have been at any other moment of it, as far as anybody here knows.
func measure(sent, answered instant, db time.Time) sample {
	wall, mono := answered.since(sent)
	return sample{db: db, mono: sent.mono.Add(mono / 2), give: max(wall, mono) / 2}
}

// at returns the database's clock at a moment of the monotonic clock.
func (s sample) at(mono time.Time) time.Time { return s.db.Add(mono.Sub(s.mono)) }

// uncertainty returns by how much that may be wrong, either way.
func (s sample) uncertainty(mono time.Time) time.Duration {
	return s.give + mono.Sub(s.mono).Abs()/driftPer
}

// or returns the one of two samples that is to be relied on: the more certain
// one, but the later one if they contradict each other, since then something has
// moved the database's clock, or has stopped this machine's.
func (s sample) or(later sample, now time.Time) sample {
	give, apart := s.uncertainty(now), s.at(now).Sub(later.at(now)).Abs()
	if more := later.uncertainty(now); more <= give || apart > give+more {
		return later
	}
	return s
}
