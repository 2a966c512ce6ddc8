package rotation_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/zonemint/zonemint/service/rotation"
	"github.com/zonemint/zonemint/store"
)

// TestWalk lets everybody who can do something to a keyset do it, in any order
// and at any time, with the rotation taking its steps in between, and checks
// after every step what must hold.
func TestWalk(t *testing.T) {
	walks, length := 400, 120
	if testing.Short() {
		walks = 50
	}
	for seed := range walks {
		m := newModel(t, uint64(seed))
		for range length {
			m.something()
			if m.r.IntN(4) > 0 {
				m.advance()
			}
		}
		m.settle()
	}
}

func pick[T any](m *model, of ...T) T { return of[m.r.IntN(len(of))] }

// something happens.
func (m *model) something() {
	switch m.r.IntN(12) {
	case 0, 1, 2:
		m.pass(pick(m, time.Second, 20*time.Second, 3*time.Minute, time.Hour, 30*time.Hour))
	case 3, 4:
		m.make()
	case 5:
		m.issue()
	case 6:
		m.acknowledge()
	case 7:
		m.replicaChanges()
	case 8:
		m.policyChanges()
	case 9:
		m.rotate()
	default:
		m.moveByHand()
	}
}

// issue has the active key sign a token.
func (m *model) issue() {
	for i := range m.l.Keys {
		if k := &m.l.Keys[i]; k.State == store.StateActive {
			expiry := m.l.Now.Add(pick(m, time.Minute, time.Hour, 20*day))
			if expiry.After(m.expired[k.Serial]) {
				m.expired[k.Serial], k.LastExpiry = expiry, expiry
			}
		}
	}
}

func (m *model) acknowledge() {
	name := pick(m, "east", "west")
	m.l.Acks = slices.DeleteFunc(m.l.Acks, func(a store.Acknowledgement) bool { return a.Consumer == name })
	kids := slices.DeleteFunc(m.kids(), func(string) bool { return m.r.IntN(10) == 0 })
	m.l.Acks = append(m.l.Acks, store.Acknowledgement{Consumer: name, KIDs: kids, AckedAt: m.l.Now})
	m.log = append(m.log, fmt.Sprintf("%s has %v", name, kids))
}

func (m *model) replicaChanges() {
	if len(m.replicas) == 0 || m.r.IntN(3) == 0 {
		m.join()
		return
	}
	s := pick(m, m.replicas...)
	if s.cut = !s.cut; m.r.IntN(3) == 0 {
		s.row.LeaseUntil, s.lease = m.l.Now.Add(-time.Microsecond), m.l.Now // it leaves, and serves no more
		s.cut = true
	}
	m.log = append(m.log, fmt.Sprintf("replica %s is cut off: %t", s.row.Name, s.cut))
}

func (m *model) policyChanges() {
	ks := m.l.Keyset
	switch m.r.IntN(7) {
	case 6:
		ks.Policy.Standby = pick(m, "", "cloud", "other")
	case 0:
		ks.Distribution = pick(m, store.DistributionJWKS, store.DistributionKumaSync, store.DistributionManual)
	case 1:
		ks.Policy.Consumers = pick(m, nil, []string{"east"}, []string{"east", "west"})
	case 2:
		ks.Policy.RotateEvery = pick(m, 0, store.Duration(time.Hour), store.Duration(10*day))
	case 3:
		ks.Policy.PublishAhead = pick(m, 0, store.Duration(time.Hour))
	case 4:
		ks.Backend, ks.Algorithm = pick(m, "local", "hsm"), pick(m, "ES256", "EdDSA")
	default:
		backend := pick(m, "local", "hsm", "cloud", "other")
		m.down[backend] = !m.down[backend]
		m.log = append(m.log, fmt.Sprintf("backend %s is down: %t", backend, m.down[backend]))
		return
	}
	m.log = append(m.log, fmt.Sprintf("keyset: %+v", ks))
	m.do("admin's policy", store.Change{Keyset: &ks})
}

// rotate asks for the successor to take over.
func (m *model) rotate() {
	l := m.look()
	if next, ok := rotation.Successor(&l, store.RolePrimary); ok {
		m.do("admin's wish", store.Change{Moves: []store.Move{{Serial: next.Serial, ActivateAfter: m.l.Now}}})
		return
	}
	m.do("admin's wish", store.Change{New: []store.NewKey{{Role: store.RolePrimary, Label: m.label(), ActivateAfter: m.l.Now, Reason: "asked"}}})
}

// moveByHand is what people may do to one key, by force.
func (m *model) moveByHand() {
	if len(m.l.Keys) == 0 || m.r.IntN(8) == 0 {
		m.do("admin", store.Change{New: []store.NewKey{{Role: store.RolePrimary, Label: m.label(), Reason: "import", Import: &store.ImportedKey{
			KID: m.label(), TrustedUntil: pick(m, time.Time{}, m.l.Now.Add(time.Hour)),
		}}}})
		return
	}
	k := pick(m, m.l.Keys...)
	to := pick(m, legal[k.State]...)
	l := m.look()
	switch {
	case to == store.StatePublished, to == store.StateActive && k.Imported:
		return
	case to == store.StateActive:
		m.do("admin by force", rotation.Takeover(&l, k.Serial, "asked", m.label))
		return
	case k.State == store.StateActive && k.Role == store.RolePrimary:
		m.excused = true
	}
	m.do("admin by force", store.Change{Moves: []store.Move{{Serial: k.Serial, To: to}}})
}

// settle lets everything get well, and wants the keyset to end with a key that
// signs and a successor of the kind that is wanted, and nothing besides that is
// not verifying.
func (m *model) settle() {
	m.t.Helper()
	m.log = append(m.log, "everything gets well")
	m.down = map[string]bool{}
	for _, s := range m.replicas {
		if s.row.LeaseUntil.After(m.l.Now) {
			s.cut = false
		}
	}
	ks := m.l.Keyset
	ks.Policy.RotateEvery = 0
	if ks.Distribution == store.DistributionManual {
		ks.Distribution = store.DistributionJWKS
	}
	ks.Policy.Consumers = []string{"east"}
	m.do("admin's policy", store.Change{Keyset: &ks})
	for range 6 {
		m.make()
		m.pass(time.Minute)
		m.l.Acks = []store.Acknowledgement{{Consumer: "east", KIDs: m.kids()}}
		m.advance()
		m.pass(30 * day)
		m.advance()
	}
	roles := []store.Role{store.RolePrimary}
	if ks.Policy.Standby != "" {
		roles = append(roles, store.RoleStandby)
	}
	if got := m.in(store.StateActive, store.StatePublished, store.StateCreating); len(got) != 2*len(roles) || len(m.in(store.StatePublished)) != len(roles) {
		m.failf("it settles with %+v", got)
	}
	for _, role := range roles {
		m.settled(role)
	}
	for _, k := range m.in(store.StateRetiring) {
		if !k.Imported || !k.TrustedUntil.IsZero() {
			m.failf("serial %d is never removed", k.Serial)
		}
	}
}

// settled wants a key that signs in a role, and a successor of the kind that is
// wanted. A standby that signs is in its backend: it moves there by itself.
func (m *model) settled(role store.Role) {
	m.t.Helper()
	l := m.look()
	active, ok := l.Active(role)
	if !ok || role == store.RoleStandby && active.Backend != m.l.Keyset.BackendFor(role) {
		m.failf("as %s signs %+v", role, active)
	}
	if next, _ := rotation.Successor(&l, role); next.Backend != m.l.Keyset.BackendFor(role) || next.Algorithm != m.l.Keyset.Algorithm {
		m.failf("the %s successor is %s in %s, not %s in %s", role, next.Algorithm, next.Backend, m.l.Keyset.Algorithm, m.l.Keyset.BackendFor(role))
	}
}
