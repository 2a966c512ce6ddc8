package rotation_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/zonemint/zonemint/service/rotation"
	"github.com/zonemint/zonemint/store"
)

// model is a keyset and the replicas that serve it, with the store's rules said a
// second time, and with what verifiers may know, which the database does not.
type model struct {
	t   *testing.T
	r   *rand.Rand
	l   store.Lifecycle
	log []string

	down     map[string]bool // backends that make no keys
	replicas []*server
	expired  map[int]time.Time // by serial: when the last token expires
	excused  bool              // somebody has taken the active key out of use
	labels   int
}

// server is a replica as it is, not as the database knows it.
type server struct {
	row        store.ReplicaLease // what the database knows
	loaded     int64
	kids       []string             // that it serves
	signs      bool                 // a key of its set does: it may be kept
	lease      time.Time            // until when it says that its sets are good
	cut        bool                 // it has no touch with the database
	servedLast map[string]time.Time // when last it served a set without a kid
}

func newModel(t *testing.T, seed uint64) *model {
	m := &model{
		t: t, r: rand.New(rand.NewPCG(seed, 0)), down: map[string]bool{}, expired: map[int]time.Time{},
		l: store.Lifecycle{Now: noon, Generation: 1, Keyset: store.Keyset{
			ID: uuid.UUID{1}, Name: "zone", Algorithm: "ES256", Backend: "local", Distribution: store.DistributionJWKS, CreatedAt: noon,
		}},
	}
	m.do("create", store.Change{New: []store.NewKey{{Role: store.RolePrimary, Label: m.label()}, {Role: store.RolePrimary, Label: m.label()}}})
	m.join()
	return m
}

func (m *model) label() string {
	m.labels++
	return fmt.Sprint("label-", m.labels)
}

// failf fails the test with everything that has happened.
func (m *model) failf(format string, args ...any) {
	m.t.Helper()
	start := max(0, len(m.log)-25)
	for _, line := range m.log[start:] {
		m.t.Log(line)
	}
	m.t.Fatalf(format, args...)
}

// legal are the transitions of the store.
var legal = map[store.State][]store.State{
	store.StateCreating:  {store.StatePublished, store.StateFailed},
	store.StatePublished: {store.StateActive, store.StateAbandoned, store.StateDistrusted},
	store.StateActive:    {store.StateRetiring, store.StateDistrusted},
	store.StateRetiring:  {store.StateActive, store.StateRemoved, store.StateDistrusted},
}

// do applies a change as the store does. What the store would refuse is a fault
// of whoever decided it.
func (m *model) do(who string, c store.Change) {
	m.t.Helper()
	if c.Keyset == nil && len(c.Moves) == 0 && len(c.New) == 0 {
		return
	}
	m.log = append(m.log, fmt.Sprintf("%s %s: %v", m.l.Now.Sub(noon), who, change(c)))
	if c.Keyset != nil {
		m.l.Keyset = *c.Keyset
	}
	for _, move := range c.Moves {
		m.move(move)
	}
	for _, nk := range c.New {
		m.l.Series.LastSerial++
		k := store.SigningKey{
			Serial: m.l.Series.LastSerial, Role: nk.Role, State: store.StateCreating, Algorithm: m.l.Keyset.Algorithm,
			Backend: m.l.Keyset.BackendFor(nk.Role), Label: nk.Label, CreatedAt: m.l.Now, ActivateAfter: nk.ActivateAfter,
		}
		if nk.Import != nil {
			k.State, k.Imported, k.Backend, k.KID, k.TrustedUntil = store.StateRetiring, true, "", nk.Import.KID, nk.Import.TrustedUntil
			k.PublishedAt, k.RetiredAt = m.l.Now, m.l.Now
		}
		m.l.Keys = append(m.l.Keys, k)
	}
	m.l.Generation++
	m.check()
}

func (m *model) move(move store.Move) {
	m.t.Helper()
	i := slices.IndexFunc(m.l.Keys, func(k store.SigningKey) bool { return k.Serial == move.Serial })
	if i < 0 {
		m.failf("serial %d, which has ended, is to become %q", move.Serial, move.To)
	}
	k := &m.l.Keys[i]
	if !move.ActivateAfter.IsZero() {
		k.ActivateAfter = move.ActivateAfter
	}
	if move.To == "" {
		return
	}
	if !slices.Contains(legal[k.State], move.To) || move.To == store.StateActive && k.Imported {
		m.failf("serial %d is %s and is to become %s", k.Serial, k.State, move.To)
	}
	k.State = move.To
	switch move.To {
	case store.StateActive:
		if k.ActivatedAt = m.l.Now; k.Role == store.RolePrimary {
			m.excused = false
		}
		if !m.l.Series.HasSigned() {
			m.l.Series.SignedSince = m.l.Now
		}
		if n := m.active(k.Role); n != 1 {
			m.failf("%d %s keys are active", n, k.Role)
		}
	case store.StateRetiring:
		k.RetiredAt = m.l.Now
		// From now on the store cannot tell when it began to sign.
		if k.PublishedAt.Before(m.l.Series.SignedSince) {
			m.l.Series.SignedSince = k.PublishedAt
		}
	case store.StatePublished:
		k.PublishedAt, k.KID = m.l.Now, fmt.Sprintf("zone-%d-x", k.Serial)
	default:
		m.l.Keys = slices.Delete(m.l.Keys, i, i+1)
	}
}

// active returns how many keys sign in a role.
func (m *model) active(role store.Role) (n int) {
	for _, k := range m.in(store.StateActive) {
		if k.Role == role {
			n++
		}
	}
	return n
}

func (m *model) in(states ...store.State) []store.SigningKey {
	var keys []store.SigningKey
	for _, k := range m.l.Keys {
		if slices.Contains(states, k.State) {
			keys = append(keys, k)
		}
	}
	return keys
}

// check checks what holds after every step.
func (m *model) check() {
	m.t.Helper()
	if n := m.active(store.RolePrimary); n > 1 || n == 0 && m.l.Series.HasSigned() && !m.excused {
		m.failf("%d keys are active", n)
	}
	if n := m.active(store.RoleStandby); n > 1 || n == 1 && !m.l.Series.HasSigned() {
		m.failf("%d standby keys are active", n)
	}
	if n := len(m.in(store.StateCreating)); n > 12 {
		m.failf("%d keys are being made", n)
	}
}

// advance takes the steps that are due, and wants them to be justified and to
// come to an end.
func (m *model) advance() {
	m.t.Helper()
	for range 10 {
		l := m.look()
		c := rotation.Apply(&l, rotation.Rules{Skew: time.Second}, m.label)
		m.justified(c)
		m.do("replica", c)
		if len(c.Moves) == 0 && len(c.New) == 0 {
			return
		}
	}
	m.failf("there is no end of steps")
}

// look returns the lifecycle as the database has it.
func (m *model) look() store.Lifecycle {
	l := m.l
	l.Keys = slices.Clone(m.l.Keys)
	l.Replicas = nil
	for _, s := range m.replicas {
		l.Replicas = append(l.Replicas, s.row)
	}
	return l
}

// justified wants a replica's change to break nothing that verifiers rely on.
func (m *model) justified(c store.Change) {
	m.t.Helper()
	for _, move := range c.Moves {
		i := slices.IndexFunc(m.l.Keys, func(k store.SigningKey) bool { return k.Serial == move.Serial })
		if i < 0 {
			continue // do says so
		}
		switch k := m.l.Keys[i]; move.To {
		case store.StateActive:
			if m.l.Series.HasSigned() || k.Role == store.RoleStandby {
				m.known(k)
			}
		case store.StateRemoved:
			if k.Imported && (k.TrustedUntil.IsZero() || m.l.Now.Before(k.TrustedUntil)) || m.l.Now.Before(m.expired[k.Serial]) {
				m.failf("serial %d is removed at %s, its last token expires at %s, trusted until %s", k.Serial, m.l.Now, m.expired[k.Serial], k.TrustedUntil)
			}
		case store.StateDistrusted, store.StateFailed:
			if !m.dismissed(k) || move.To == store.StateDistrusted {
				m.failf("serial %d becomes %s by itself", k.Serial, move.To)
			}
		case store.StateRetiring:
			if !m.dismissed(k) && !slices.ContainsFunc(c.Moves, func(m store.Move) bool { return m.To == store.StateActive }) {
				m.failf("serial %d retires, and nothing takes its place", k.Serial)
			}
		default:
		}
	}
}

// dismissed says whether a key is a standby of a keyset that is to have none.
func (m *model) dismissed(k store.SigningKey) bool {
	return k.Role == store.RoleStandby && m.l.Keyset.Policy.Standby == ""
}

// known wants every verifier to know a key, whatever set it has got from whatever
// replica, and every consumer.
func (m *model) known(k store.SigningKey) {
	m.t.Helper()
	switch m.l.Keyset.Distribution {
	case store.DistributionManual:
		m.failf("serial %d becomes active by itself, and distribution is manual", k.Serial)
	case store.DistributionKumaSync:
		if len(m.l.Keyset.Policy.Consumers) == 0 {
			m.failf("serial %d becomes active, and nobody has told that it arrived", k.Serial)
		}
	case store.DistributionJWKS:
		for _, s := range m.replicas {
			if last, ok := s.servedLast[k.KID]; ok && m.l.Now.Before(last.Add(s.row.CacheFor)) {
				m.failf("serial %d becomes active at %s; until %s there may be sets without it, which replica %s served until %s",
					k.Serial, m.l.Now, last.Add(s.row.CacheFor), s.row.Name, last)
			}
			if s.lease.After(m.l.Now) && !slices.Contains(s.kids, k.KID) {
				m.failf("serial %d becomes active, and replica %s does not serve it", k.Serial, s.row.Name)
			}
		}
	}
	for _, name := range m.l.Keyset.Policy.Consumers {
		if !slices.ContainsFunc(m.l.Acks, func(a store.Acknowledgement) bool { return a.Consumer == name && slices.Contains(a.KIDs, k.KID) }) {
			m.failf("serial %d becomes active, and consumer %s does not have it", k.Serial, name)
		}
	}
}

func (m *model) kids() []string {
	var kids []string
	for _, k := range m.in(store.StatePublished, store.StateActive, store.StateRetiring) {
		kids = append(kids, k.KID)
	}
	return kids
}

// join starts a replica, which loads the ring before it serves.
func (m *model) join() {
	name := string(rune('a' + len(m.replicas)%26))
	s := &server{loaded: m.l.Generation, kids: m.kids(), signs: m.active(store.RolePrimary) > 0, servedLast: map[string]time.Time{}}
	s.row = replica(name, m.l.Generation, 0)
	s.row.LeaseTTL, s.row.CacheFor = time.Duration(1+m.r.IntN(600))*time.Second, time.Duration(m.r.IntN(600))*time.Second
	s.row.LeaseUntil = m.l.Now.Add(s.row.LeaseTTL)
	s.lease = s.row.LeaseUntil
	m.replicas = append(m.replicas, s)
}

// beat has a replica renew its lease and say what it has loaded. Then it loads
// what is new, if that works, and only with the newest ring it goes by the lease.
func (m *model) beat(s *server) {
	if s.cut {
		return
	}
	s.row.LeaseUntil, s.row.Generation = m.l.Now.Add(s.row.LeaseTTL), s.loaded
	if m.r.IntN(3) > 0 {
		s.loaded, s.kids, s.signs = m.l.Generation, m.kids(), m.active(store.RolePrimary) > 0
	}
	if s.loaded == m.l.Generation {
		s.lease = s.row.LeaseUntil
	}
}

// pass lets time go by, in small steps, in which replicas serve.
func (m *model) pass(d time.Duration) {
	m.log = append(m.log, fmt.Sprintf("%s: %s pass", m.l.Now.Sub(noon), d))
	for end := m.l.Now.Add(d); m.l.Now.Before(end); {
		step := min(end.Sub(m.l.Now), max(time.Second, d/7))
		for _, s := range m.replicas {
			m.beat(s)
			// Whatever it lacks at this moment, it may serve without until the next
			// moment, or until its lease ends.
			until := m.l.Now.Add(step)
			if s.lease.Before(until) {
				until = s.lease
			}
			for _, kid := range m.kids() {
				if s.signs && s.lease.After(m.l.Now) && !slices.Contains(s.kids, kid) {
					s.servedLast[kid] = until
				}
			}
		}
		m.l.Now = m.l.Now.Add(step)
	}
	m.replicas = slices.DeleteFunc(m.replicas, func(s *server) bool { return m.l.Now.Sub(s.row.LeaseUntil) > day })
}

// make has the backends make what they are asked to.
func (m *model) make() {
	for _, k := range m.in(store.StateCreating) {
		if !m.down[k.Backend] {
			m.do("backend", store.Change{Moves: []store.Move{{Serial: k.Serial, To: store.StatePublished}}})
		}
	}
}
