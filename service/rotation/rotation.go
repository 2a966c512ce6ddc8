// Package rotation decides what becomes of the keys of a keyset. It looks at
// what the database says at one moment and has no effects: the same look always
// gives the same steps, so any replica may take them, and one that comes second
// finds nothing left to do.
package rotation

import (
	"fmt"
	"slices"
	"time"

	"github.com/zonemint/zonemint/store"
)

// Rules are the bounds that decisions keep to.
type Rules struct {
	// Skew is by how much the clocks of verifiers may be wrong, and how long
	// after the expiry of a key's last token the key is removed.
	Skew time.Duration
}

// Kind is what a step does.
type Kind string

// The kinds of steps.
const (
	Begin    Kind = "begin"    // insert the row of the next serial
	Make     Kind = "make"     // make the key in its backend and publish it
	Activate Kind = "activate" // let it sign; the key that does now retires
	Abandon  Kind = "abandon"  // take a successor back that is not wanted any more
	GiveUp   Kind = "give-up"  // stop making a key that is not wanted any more
	Retire   Kind = "retire"   // let it only verify, with none in its place
	Remove   Kind = "remove"   // take it out of the JWK set
)

// Step is something that is to be done, now or later.
type Step struct {
	Kind   Kind
	Serial int
	KID    string // if it is known
	// At is the earliest time. Zero: nobody can tell, see Held.
	At     time.Time
	Reason string
	// Held has a sentence for everything that the step waits for besides the
	// time.
	Held []Hold
	// Evidence has a sentence for everything that speaks for the step.
	Evidence []string

	role          store.Role
	activateAfter time.Time // of a serial to begin
}

// Hold is something that a step waits for.
type Hold struct {
	Text string
	// Replica says that it is a replica that has to catch up, which takes
	// moments.
	Replica bool
}

// Due says whether the step may be taken now.
func (s *Step) Due(now time.Time) bool {
	return len(s.Held) == 0 && !s.At.IsZero() && !now.Before(s.At)
}

// Steps returns what is to become of a keyset, in the order of time; what nobody
// can tell the time of comes last.
func Steps(l *store.Lifecycle, r Rules) []Step {
	if len(l.Faults) > 0 {
		return nil
	}
	var steps []Step
	for _, k := range l.Keys {
		if k.State == store.StateCreating {
			steps = append(steps, Step{Kind: Make, Serial: k.Serial, At: l.Now, Reason: "its row is written, the key is yet to be made"})
		}
	}
	steps = append(steps, succession(l, r, store.RolePrimary)...)
	steps = append(steps, standby(l, r)...)
	for _, k := range l.Keys {
		if s, ok := removal(r, k); ok {
			steps = append(steps, s)
		}
	}
	slices.SortStableFunc(steps, func(a, b Step) int {
		switch {
		case a.At.IsZero() != b.At.IsZero():
			return map[bool]int{true: 1, false: -1}[a.At.IsZero()]
		default:
			return a.At.Compare(b.At)
		}
	})
	return steps
}

// Planned returns the times of the changes of a keyset that its rows alone
// foretell. What the evidence allows may come later, and earlier only when a
// key takes over that every verifier has known from the start.
func Planned(ks store.Keyset, keys []store.SigningKey, r Rules) []time.Time {
	// It has signed since some time: before its own keys were published will do.
	l := store.Lifecycle{Keyset: ks, Keys: keys, Series: store.Series{SignedSince: ks.CreatedAt}}
	var times []time.Time
	for _, s := range Steps(&l, r) {
		if !s.At.IsZero() {
			times = append(times, s.At)
		}
	}
	return times
}

// succession sees to it that a keyset always has a published successor of the
// kind that its policy wants, and that it takes over when its time has come.
func succession(l *store.Lifecycle, r Rules, role store.Role) []Step {
	heirs := heirs(l, role)
	wanted := slices.IndexFunc(heirs, func(k store.SigningKey) bool { return fits(l, k) })
	var steps []Step
	if wanted < 0 {
		steps = append(steps, begin(l, role, heirs))
	} else if l.Series.HasSigned() {
		steps = supersede(l, heirs, heirs[wanted])
	}
	if s, ok := takeover(l, r, role, heirs); ok {
		steps = append(steps, s)
	}
	return steps
}

// standby returns what is to become of the keys that sign while the keyset's backend
// cannot. They come after the first key of the keyset, about which no verifier can
// be wrong, and go when they are not wanted any more.
func standby(l *store.Lifecycle, r Rules) []Step {
	switch {
	case l.Keyset.BackendFor(store.RoleStandby) == "":
		return dismissal(l)
	case !l.Series.HasSigned():
		return nil
	default:
		return succession(l, r, store.RoleStandby)
	}
}

// dismissal returns the end of the standby keys of a keyset that is to have none.
func dismissal(l *store.Lifecycle) []Step {
	var steps []Step
	end := map[store.State]Kind{store.StateActive: Retire, store.StatePublished: Abandon, store.StateCreating: GiveUp}
	for _, k := range l.Keys {
		if kind, ok := end[k.State]; ok && k.Role == store.RoleStandby {
			steps = append(steps, Step{Kind: kind, Serial: k.Serial, KID: k.KID, At: l.Now, Reason: "the keyset has no standby any more"})
		}
	}
	return steps
}

// Successor returns the key that is to sign next: published, or being made if
// none is.
func Successor(l *store.Lifecycle, role store.Role) (store.SigningKey, bool) {
	all := heirs(l, role)
	for _, wanted := range []func(store.SigningKey) bool{
		func(k store.SigningKey) bool { return k.State == store.StatePublished && fits(l, k) },
		func(k store.SigningKey) bool { return fits(l, k) },
		func(store.SigningKey) bool { return true },
	} {
		if i := slices.IndexFunc(all, wanted); i >= 0 {
			return all[i], true
		}
	}
	return store.SigningKey{}, false
}

// supersede returns the end of all published keys but the successor, once that
// is published itself.
func supersede(l *store.Lifecycle, heirs []store.SigningKey, next store.SigningKey) []Step {
	if next.State != store.StatePublished {
		return nil
	}
	var steps []Step
	for _, k := range heirs {
		if k.Serial != next.Serial && k.State == store.StatePublished {
			steps = append(steps, Step{
				Kind: Abandon, Serial: k.Serial, KID: k.KID, At: l.Now,
				Reason: fmt.Sprintf("serial %d has taken its place as successor", next.Serial),
			})
		}
	}
	return steps
}

// heirs returns the keys that are being made or published, the newest first.
func heirs(l *store.Lifecycle, role store.Role) []store.SigningKey {
	var keys []store.SigningKey
	for _, k := range slices.Backward(l.Keys) {
		if k.Role == role && !k.Imported && (k.State == store.StateCreating || k.State == store.StatePublished) {
			keys = append(keys, k)
		}
	}
	return keys
}

func begin(l *store.Lifecycle, role store.Role, superseded []store.SigningKey) Step {
	s := Step{Kind: Begin, Serial: l.Series.LastSerial + 1, At: l.Now, role: role, Reason: "the keyset has no published successor"}
	if role == store.RoleStandby {
		s.Reason = "the standby has no published successor"
	}
	if len(superseded) > 0 {
		s.Reason = fmt.Sprintf("new keys are to be %s in backend %q", l.Keyset.Algorithm, l.Keyset.BackendFor(role))
		for _, k := range superseded { // a rotation that was asked for goes on
			s.activateAfter = latest(s.activateAfter, k.ActivateAfter)
		}
	}
	return s
}

// takeover returns the activation of the successor, if it is to come.
func takeover(l *store.Lifecycle, r Rules, role store.Role, heirs []store.SigningKey) (Step, bool) {
	if !l.Series.HasSigned() {
		return first(l, role, heirs)
	}
	k, ok := next(l, role, heirs)
	if !ok {
		return Step{}, false
	}
	asked, reason := asked(l, role, k)
	if asked.IsZero() {
		return Step{}, false
	}
	s := Activation(l, r, k)
	s.Reason = reason
	s.At = latest(s.At, asked)
	if _, signing := l.Active(role); signing {
		s.At = latest(s.At, k.PublishedAt.Add(time.Duration(l.Keyset.Policy.PublishAhead)))
	}
	if l.Keyset.Distribution == store.DistributionManual {
		s.Held = append(s.Held, Hold{Text: fmt.Sprintf(
			"distribution is manual: when verifiers have the key, run `zonemint key activate %s %d`", l.Keyset.Name, k.Serial)})
	}
	return s, true
}

// first returns the activation of a keyset's first key. It is the oldest one, so
// that a new keyset begins with its first serial; but not one in a backend that
// was given up before it made it.
func first(l *store.Lifecycle, role store.Role, heirs []store.SigningKey) (Step, bool) {
	candidates := heirs
	if wanted := slices.DeleteFunc(slices.Clone(heirs), func(k store.SigningKey) bool { return !fits(l, k) }); len(wanted) > 0 {
		candidates = wanted
	}
	if len(candidates) == 0 {
		return Step{}, false
	}
	k := candidates[len(candidates)-1]
	s := Step{
		Kind: Activate, Serial: k.Serial, KID: k.KID, At: l.Now, role: role,
		Reason: "it is the first key of the keyset: no verifier can have an older set",
	}
	successor := func(h store.SigningKey) bool { return h.Serial > k.Serial && h.State == store.StateCreating }
	if slices.ContainsFunc(candidates, successor) && !k.PublishedAt.After(l.Now) { // unless a clock was put back
		s.At = latest(l.Now, k.PublishedAt.Add(successorTime))
	}
	return s, k.State == store.StatePublished
}

// successorTime is how long a keyset's first key waits for the second one to be
// made. With both in the first set that verifiers get, the second needs no wait.
const successorTime = 5 * time.Second

// next returns the published key that takes over next. It is the one that
// supersede leaves in place. One of a kind that is about to be replaced itself is
// not worth a rotation, but better than no key that signs.
func next(l *store.Lifecycle, role store.Role, heirs []store.SigningKey) (store.SigningKey, bool) {
	_, signing := l.Active(role)
	i := slices.IndexFunc(heirs, func(k store.SigningKey) bool { return k.State == store.StatePublished && fits(l, k) })
	if i < 0 && !signing {
		i = slices.IndexFunc(heirs, func(k store.SigningKey) bool { return k.State == store.StatePublished })
	}
	if i < 0 {
		return store.SigningKey{}, false
	}
	return heirs[i], true
}

// fits says whether a key is of the kind that the keyset wants new keys to be.
func fits(l *store.Lifecycle, k store.SigningKey) bool {
	return k.Backend == l.Keyset.BackendFor(k.Role) && k.Algorithm == l.Keyset.Algorithm
}

// asked returns from when on a key is to take over, and why; zero if it is not.
func asked(l *store.Lifecycle, role store.Role, k store.SigningKey) (time.Time, string) {
	active, signing := l.Active(role)
	switch every := time.Duration(l.Keyset.Policy.RotateEvery); {
	case !signing && role == store.RoleStandby:
		return l.Now, "no key is ready to stand in"
	case !signing:
		return l.Now, "no key of the keyset signs"
	case role == store.RoleStandby && !fits(l, active): // which no rotation that is asked for is about
		return l.Now, fmt.Sprintf("the standby is to be %s in backend %q", l.Keyset.Algorithm, l.Keyset.BackendFor(role))
	case !k.ActivateAfter.IsZero():
		return k.ActivateAfter, "a rotation was asked for"
	case every > 0:
		return active.ActivatedAt.Add(every), fmt.Sprintf("the keyset rotates every %s", every)
	default:
		return time.Time{}, ""
	}
}

// removal returns the end of a key that only verifies.
func removal(r Rules, k store.SigningKey) (Step, bool) {
	if k.State != store.StateRetiring {
		return Step{}, false
	}
	s := Step{Kind: Remove, Serial: k.Serial, KID: k.KID}
	if k.Imported {
		s.At, s.Reason = k.TrustedUntil, "it was imported to be trusted until then"
		return s, !k.TrustedUntil.IsZero()
	}
	s.At = latest(k.LastExpiry, k.RetiredAt).Add(r.Skew)
	s.Reason = "every token that it has signed will have expired"
	return s, true
}

func latest(times ...time.Time) time.Time { return slices.MaxFunc(times, time.Time.Compare) }
