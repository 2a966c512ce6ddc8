package rotation_test

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/zonemint/zonemint/service/rotation"
	"github.com/zonemint/zonemint/store"
)

// The policy of a keyset.
func every(d time.Duration) edit {
	return func(l *store.Lifecycle) { l.Keyset.Policy.RotateEvery = store.Duration(d) }
}

func ahead(d time.Duration) edit {
	return func(l *store.Lifecycle) { l.Keyset.Policy.PublishAhead = store.Duration(d) }
}

func by(d store.Distribution, consumers ...string) edit {
	return func(l *store.Lifecycle) { l.Keyset.Distribution, l.Keyset.Policy.Consumers = d, consumers }
}

func acked(consumer string, kids ...string) edit {
	return func(l *store.Lifecycle) {
		l.Acks = append(l.Acks, store.Acknowledgement{Consumer: consumer, KIDs: kids, AckedAt: noon})
	}
}

func among(rs ...store.ReplicaLease) edit {
	return func(l *store.Lifecycle) { l.Replicas = rs }
}

func wants(backend, algorithm string) edit {
	return func(l *store.Lifecycle) { l.Keyset.Backend, l.Keyset.Algorithm = backend, algorithm }
}

func published(ago time.Duration) func(*store.SigningKey) {
	return func(k *store.SigningKey) { k.PublishedAt = noon.Add(-ago) }
}

func in(backend string) func(*store.SigningKey) {
	return func(k *store.SigningKey) { k.Backend = backend }
}

func both(changes ...func(*store.SigningKey)) func(*store.SigningKey) {
	return func(k *store.SigningKey) {
		for _, c := range changes {
			c(k)
		}
	}
}

type scene struct {
	name string
	l    *store.Lifecycle
	// steps are those of the keyset, do is what Apply makes of them.
	steps, do []string
}

func play(t *testing.T, scenes []scene) {
	t.Helper()
	for _, s := range scenes {
		t.Run(s.name, func(t *testing.T) {
			before := *s.l
			before.Keys = append([]store.SigningKey(nil), s.l.Keys...)
			same(t, "steps", steps(s.l), s.steps)
			same(t, "Apply", change(rotation.Apply(s.l, rules, label)), s.do)
			if !reflect.DeepEqual(before.Keys, s.l.Keys) || before.Series != s.l.Series {
				t.Error("the look was changed")
			}
			if !reflect.DeepEqual(rotation.Steps(s.l, rules), rotation.Steps(s.l, rules)) {
				t.Error("the same look gives other steps")
			}
		})
	}
}

func TestSuccession(t *testing.T) {
	play(t, []scene{
		{"settled", settled(), nil, nil},
		{"no keys at all", settled(unsigned, keys(), func(l *store.Lifecycle) { l.Series.LastSerial = 0 }), []string{"begin 1 now"}, []string{"new"}},
		{"row that is tampered with", settled(keys(key(2, store.StateActive)), func(l *store.Lifecycle) { l.Faults = []error{errors.New("x")} }), nil, nil},

		// A new keyset.
		{"being made", settled(unsigned, keys(key(1, store.StateCreating), key(2, store.StateCreating))), []string{"make 1 now", "make 2 now"}, nil},
		{"first is made", settled(unsigned, keys(key(1, store.StatePublished), key(2, store.StateCreating)), of(1, published(time.Second))), []string{"make 2 now", "activate 1 +4s"}, nil},
		{"the second takes long", settled(unsigned, keys(key(1, store.StatePublished), key(2, store.StateCreating)), of(1, published(5*time.Second))), []string{"make 2 now", "activate 1 now"}, []string{"1 active"}},
		{"the clock was put back", settled(unsigned, keys(key(1, store.StatePublished), key(2, store.StateCreating)), of(1, published(-time.Hour))), []string{"make 2 now", "activate 1 now"}, []string{"1 active"}},
		{"second is made before the first", settled(unsigned, keys(key(1, store.StateCreating), key(2, store.StatePublished))), []string{"make 1 now"}, nil},
		{"both are made", settled(unsigned, keys(key(1, store.StatePublished), key(2, store.StatePublished))), []string{"activate 1 now"}, []string{"1 active"}},
		{"first has failed", settled(unsigned, keys(key(2, store.StatePublished))), []string{"activate 2 now"}, []string{"2 active", "new"}},
		{
			"first, whatever is waited for later", settled(unsigned, by(store.DistributionManual, "east"), ahead(day), among(replica("a", 1, lease)),
				keys(key(1, store.StatePublished), key(2, store.StatePublished))), []string{"activate 1 now"}, []string{"1 active"},
		},
		{
			"first keys are in a backend that is given up", settled(unsigned, wants("hsm", "ES256"),
				keys(key(1, store.StateCreating), key(2, store.StateCreating)), with(key(3, store.StatePublished), in("hsm"))),
			[]string{"make 1 now", "make 2 now", "activate 3 now"}, []string{"3 active", "new"},
		},

		// The successor.
		{"no successor", settled(keys(key(2, store.StateActive))), []string{"begin 4 now"}, []string{"new"}},
		{"successor is being made", settled(keys(key(2, store.StateActive), key(3, store.StateCreating))), []string{"make 3 now"}, nil},
		{"only an imported key besides", settled(keys(key(2, store.StateActive)), with(key(3, store.StateRetiring), func(k *store.SigningKey) {
			k.Imported, k.ActivatedAt, k.LastExpiry = true, time.Time{}, time.Time{}
		})), []string{"begin 4 now"}, []string{"new"}},
		{"two successors", settled(with(key(4, store.StatePublished), asIs)), []string{"abandon 3 now"}, []string{"3 abandoned"}},
		{"second successor is being made", settled(with(key(4, store.StateCreating), asIs)), []string{"make 4 now"}, nil},
	})
}

func TestAnotherKind(t *testing.T) {
	play(t, []scene{
		{"backend changes", settled(wants("hsm", "ES256")), []string{"begin 4 now"}, []string{"new"}},
		{"algorithm changes", settled(wants("local", "EdDSA")), []string{"begin 4 now"}, []string{"new"}},
		{"a rotation was asked for", settled(wants("hsm", "ES256"), of(3, asked)), []string{"begin 4 now"}, []string{"new, asked for"}},
		{
			"a rotation was asked for, of the older one", settled(wants("hsm", "ES256"), of(3, asked), with(key(4, store.StateCreating), asIs)),
			[]string{"make 4 now", "begin 5 now"}, []string{"new, asked for"},
		},
		{
			"being made", settled(wants("hsm", "ES256"), of(3, asked), with(key(4, store.StateCreating), both(in("hsm"), asked))),
			[]string{"make 4 now"}, nil,
		},
		{
			"made", settled(wants("hsm", "ES256"), of(3, asked), with(key(4, store.StatePublished), both(in("hsm"), asked, published(0)))),
			[]string{"abandon 3 now", "activate 4 +" + "6m30s"}, []string{"3 abandoned"},
		},
		{
			"made, nothing was asked for", settled(wants("hsm", "ES256"), with(key(4, store.StatePublished), in("hsm"))),
			[]string{"abandon 3 now"}, []string{"3 abandoned"},
		},
		{
			"made, after the waits", settled(wants("hsm", "ES256"), keys(key(2, store.StateActive)), with(key(4, store.StatePublished), both(in("hsm"), asked))),
			[]string{"activate 4 now"}, []string{"2 retiring", "4 active", "new"},
		},
		{
			"back again", settled(with(key(4, store.StatePublished), in("hsm"))),
			[]string{"abandon 4 now"}, []string{"4 abandoned"},
		},
		{
			"back again, and nothing signs", settled(keys(key(3, store.StatePublished)), with(key(4, store.StatePublished), in("hsm"))),
			[]string{"abandon 4 now", "activate 3 now"}, []string{"4 abandoned", "3 active", "new"},
		},
		{
			"nothing signs, and only the old kind is there", settled(wants("hsm", "ES256"), keys(key(3, store.StatePublished))),
			[]string{"begin 4 now", "activate 3 now"}, []string{"3 active", "new"},
		},
	})
}

func TestTakeoverInTime(t *testing.T) {
	play(t, []scene{
		{"asked for", settled(of(3, asked)), []string{"activate 3 now"}, []string{"2 retiring", "3 active", "new"}},
		{"asked for, to come later", settled(of(3, func(k *store.SigningKey) { k.ActivateAfter = noon.Add(time.Hour) })), []string{"activate 3 +1h"}, nil},
		{"asked for, while one is being made", settled(of(3, asked), with(key(4, store.StateCreating), asIs)), []string{"activate 3 now", "make 4 now"}, []string{"2 retiring", "3 active"}},
		{"asked for at once", settled(of(3, both(asked, published(0)))), []string{"activate 3 +6m30s"}, nil},
		{"a second before", settled(of(3, both(asked, published(wait-time.Second)))), []string{"activate 3 +1s"}, nil},
		{"to the second", settled(of(3, both(asked, published(wait)))), []string{"activate 3 now"}, []string{"2 retiring", "3 active", "new"}},

		{"every two days", settled(every(2 * day)), []string{"activate 3 +24h"}, nil},
		{"every day", settled(every(day)), []string{"activate 3 now"}, []string{"2 retiring", "3 active", "new"}},
		{"long overdue", settled(every(time.Hour), of(3, published(0))), []string{"activate 3 +6m30s"}, nil},
		{"sooner than every two days", settled(every(2*day), of(3, asked)), []string{"activate 3 now"}, []string{"2 retiring", "3 active", "new"}},
		{"published ahead", settled(every(day), ahead(36*time.Hour)), []string{"activate 3 +12h"}, nil},
		{"published ahead enough", settled(every(day), ahead(day)), []string{"activate 3 now"}, []string{"2 retiring", "3 active", "new"}},
		{"published ahead, asked for", settled(of(3, asked), ahead(36*time.Hour)), []string{"activate 3 +12h"}, nil},

		{"asked for at once, known from the start", settled(firstSet, of(3, both(asked, published(time.Minute)))), []string{"activate 3 now"}, []string{"2 retiring", "3 active", "new"}},
		{"asked for at once, made a moment later", settled(firstSet, of(3, both(asked, published(time.Minute-time.Microsecond)))), []string{"activate 3 +5m30.000001s"}, nil},
		{"made later, by a clock that was put back", settled(firstSet, of(3, both(asked, func(k *store.SigningKey) {
			k.CreatedAt, k.PublishedAt = noon.Add(-2*time.Minute), noon.Add(-2*time.Minute)
		}))), []string{"activate 3 +4m30s"}, nil},
		{"known from the start, published ahead", settled(firstSet, every(time.Hour), ahead(time.Hour), of(3, published(time.Minute))), []string{"activate 3 +59m"}, nil},

		// Without a key that signs.
		{"distrusted", settled(keys(key(3, store.StatePublished))), []string{"activate 3 now"}, []string{"3 active", "new"}},
		{"distrusted, young successor", settled(keys(key(3, store.StatePublished)), of(3, published(time.Minute))), []string{"activate 3 +5m30s"}, nil},
		{"distrusted, no successor", settled(keys()), []string{"begin 4 now"}, []string{"new"}},
		{"distrusted, successor is being made", settled(keys(key(3, store.StateCreating))), []string{"make 3 now"}, nil},
		{"retired by force", settled(keys(key(2, store.StateRetiring), key(3, store.StatePublished))), []string{"activate 3 now", "remove 2 +1h1m"}, []string{"3 active", "new"}},
		{"retired by force, no successor", settled(keys(key(2, store.StateRetiring))), []string{"begin 4 now", "remove 2 +1h1m"}, []string{"new"}},
	})
}

func TestWaits(t *testing.T) {
	slow, long := replica("b", 10, lease), replica("c", 10, lease)
	slow.LeaseTTL, long.CacheFor = time.Hour, 2*time.Hour
	dead, left := replica("d", 1, -20*time.Hour), replica("e", 2, -time.Microsecond)
	dead.CacheFor, left.CacheFor = 6*time.Hour, 3*time.Hour
	just := of(3, both(asked, published(0)))
	play(t, []scene{
		{"the longest lease", settled(just, among(replica("a", 10, lease), slow)), []string{"activate 3 +1h6m"}, nil},
		{"the longest cache", settled(just, among(slow, long)), []string{"activate 3 +2h1m30s"}, nil},
		{"a dead replica", settled(just, among(replica("a", 10, lease), dead)), []string{"activate 3 +6h1m30s"}, nil},
		{"a replica that has left", settled(just, among(left, replica("a", 10, lease))), []string{"activate 3 +3h1m30s"}, nil},
		{"no replica", settled(just, among()), []string{"activate 3 +1m"}, nil},
		{"not with a bridge", settled(just, by(store.DistributionKumaSync, "east"), acked("east", "zone-3-x")), []string{"activate 3 now"}, []string{"2 retiring", "3 active", "new"}},
	})
	for want, l := range map[time.Duration]*store.Lifecycle{
		wait: settled(), 6*time.Hour + lease + skew: settled(among(dead, slow)), skew: settled(among()),
	} {
		if got := rotation.BelievedFor(l, rules); got != want {
			t.Errorf("a distrusted key is believed for %s, want %s", got, want)
		}
	}
}

func TestHolds(t *testing.T) {
	behind := replica("b", 9, lease)
	gone := replica("c", 1, 0) // its lease ends at noon
	const lags = "held: replica b (03620000) has not loaded the present key ring (it has generation 9, the ring is at 10)"
	due := of(3, asked)
	go3 := []string{"2 retiring", "3 active", "new"}
	play(t, []scene{
		{"a replica lags", settled(due, among(replica("a", 10, lease), behind)), []string{"activate 3 now, " + lags}, nil},
		{"a replica is gone", settled(due, among(replica("a", 10, lease), gone)), []string{"activate 3 now"}, go3},
		{"a replica is ahead", settled(due, among(replica("a", 11, lease))), []string{"activate 3 now"}, go3},
		{"a bridge that lags", settled(due, by(store.DistributionKumaSync, "east"), acked("east", "zone-2-x")), []string{"activate 3 now, held: consumer east has not acknowledged zone-3-x"}, nil},
		{"a bridge that has it", settled(due, by(store.DistributionKumaSync, "east"), acked("east", "zone-2-x", "zone-3-x")), []string{"activate 3 now"}, go3},
		{"a bridge and a replica", settled(due, among(behind), by(store.DistributionKumaSync, "east")), []string{"activate 3 now, " + lags + ", held: consumer east has not…"}, nil},
		{"no bridge", settled(due, by(store.DistributionKumaSync)), []string{"activate 3 now, held: the keyset names no consumer…"}, nil},
		{"one of two", settled(due, by(store.DistributionKumaSync, "east", "west"), acked("east", "zone-3-x")), []string{"activate 3 now, held: consumer west has not…"}, nil},
		{"a stranger", settled(due, by(store.DistributionKumaSync, "east"), acked("west", "zone-3-x")), []string{"activate 3 now, held: consumer east has not…"}, nil},
		{"they fetch, and one acknowledges", settled(due, by(store.DistributionJWKS, "east")), []string{"activate 3 now, held: consumer east has not…"}, nil},
		{"they fetch, and one has acknowledged", settled(due, by(store.DistributionJWKS, "east"), acked("east", "zone-3-x")), []string{"activate 3 now"}, go3},
		{"they fetch, acknowledged early", settled(due, of(3, published(0)), by(store.DistributionJWKS, "east"), acked("east", "zone-3-x")), []string{"activate 3 +6m30s"}, nil},
		{"by hand", settled(due, by(store.DistributionManual)), []string{"activate 3 now, held: distribution is manual: when verifiers have the key, run `zonemint key activate zone 3`"}, nil},
		{"by hand, acknowledged", settled(due, by(store.DistributionManual, "east"), acked("east", "zone-3-x")), []string{"activate 3 now, held: distribution is manual…"}, nil},
		{"by hand, on schedule", settled(every(day), by(store.DistributionManual)), []string{"activate 3 now, held: distribution is manual…"}, nil},
		{"by hand, and nothing signs", settled(keys(key(3, store.StatePublished)), by(store.DistributionManual)), []string{"activate 3 now, held: distribution is manual…"}, nil},
		{"by hand, not asked for", settled(by(store.DistributionManual)), nil, nil},
	})
}

func TestRemoval(t *testing.T) {
	old := func(expiry time.Duration) edit {
		return with(key(1, store.StateRetiring), func(k *store.SigningKey) { k.LastExpiry = noon.Add(expiry) })
	}
	imported := func(until time.Time) edit {
		return with(key(1, store.StateRetiring), func(k *store.SigningKey) {
			k.Imported, k.Backend, k.ActivatedAt, k.LastExpiry, k.TrustedUntil = true, "", time.Time{}, time.UnixMicro(0), until
		})
	}
	play(t, []scene{
		{"tokens live", settled(old(time.Hour)), []string{"remove 1 +1h1m"}, nil},
		{"tokens have just expired", settled(old(0)), []string{"remove 1 +1m"}, nil},
		{"tokens have expired", settled(old(-skew)), []string{"remove 1 now"}, []string{"1 removed"}},
		{"never signed a token", settled(with(key(1, store.StateRetiring), func(k *store.SigningKey) { k.LastExpiry = time.UnixMicro(0) })), []string{"remove 1 now"}, []string{"1 removed"}},
		{"just retired", settled(with(key(1, store.StateRetiring), func(k *store.SigningKey) { k.LastExpiry, k.RetiredAt = time.UnixMicro(0), noon })), []string{"remove 1 +1m"}, nil},
		{"imported, for ever", settled(imported(time.Time{})), nil, nil},
		{"imported", settled(imported(noon.Add(time.Hour))), []string{"remove 1 +1h"}, nil},
		{"imported, to the second", settled(imported(noon)), []string{"remove 1 now"}, []string{"1 removed"}},
		{"not the active one", settled(of(2, func(k *store.SigningKey) { k.LastExpiry = noon.Add(-time.Hour) })), nil, nil},
		{"with a takeover", settled(old(-skew), of(3, asked)), []string{"activate 3 now", "remove 1 now"}, []string{"2 retiring", "3 active", "1 removed", "new"}},
	})
}

// After an activation that was undone, what was active is retiring again.
func TestRollback(t *testing.T) {
	l := settled(keys(key(2, store.StateRetiring), key(3, store.StateActive), key(4, store.StatePublished)),
		of(2, published(time.Hour)))
	k, _ := l.Key(2)
	if s := rotation.Activation(l, rules, k); !s.Due(noon) {
		t.Errorf("going back waits for %+v", s)
	}
	// One that was forced to sign before verifiers had it waits like any other.
	forced := k
	forced.PublishedAt = noon
	if s := rotation.Activation(l, rules, forced); s.Due(noon) {
		t.Error("verifiers cannot have the key yet")
	}
	l = settled(by(store.DistributionKumaSync, "east"), keys(l.Keys...))
	if s := rotation.Activation(l, rules, k); s.Due(noon) {
		t.Error("the consumer has never had the key")
	}
	same(t, "Takeover", change(rotation.Takeover(l, 2, "back", label)), []string{"3 retiring", "2 active"})
	after := rotation.Preview(l, rotation.Takeover(l, 2, "back", label))
	same(t, "steps after it", steps(&after), []string{"remove 3 +1h1m"})
}

func TestTakeover(t *testing.T) {
	for name, c := range map[string]struct {
		l    *store.Lifecycle
		want []string
	}{
		"successor":         {settled(), []string{"2 retiring", "3 active", "new"}},
		"of two":            {settled(with(key(4, store.StatePublished), asIs)), []string{"2 retiring", "3 active"}},
		"one is being made": {settled(with(key(4, store.StateCreating), asIs)), []string{"2 retiring", "3 active"}},
		"nothing signs":     {settled(keys(key(3, store.StatePublished))), []string{"3 active", "new"}},
		"standby signs": {settled(with(key(4, store.StateActive), func(k *store.SigningKey) { k.Role = store.RoleStandby })),
			[]string{"2 retiring", "3 active", "new"}},
	} {
		got := rotation.Takeover(c.l, 3, "why", label)
		same(t, name, change(got), c.want)
		for _, m := range got.Moves {
			if m.Reason != "why" {
				t.Errorf("%s: %+v", name, m)
			}
		}
	}
}

func TestSuccessor(t *testing.T) {
	for name, c := range map[string]struct {
		l    *store.Lifecycle
		want int
	}{
		"published":                    {settled(), 3},
		"being made":                   {settled(keys(key(2, store.StateActive), key(3, store.StateCreating))), 3},
		"published before being made":  {settled(with(key(4, store.StateCreating), asIs)), 3},
		"newest":                       {settled(with(key(4, store.StatePublished), asIs)), 4},
		"of the kind that is wanted":   {settled(with(key(4, store.StatePublished), in("hsm"))), 3},
		"being made, but of that kind": {settled(wants("hsm", "ES256"), with(key(4, store.StateCreating), in("hsm"))), 4},
		"of another kind if need be":   {settled(wants("hsm", "EdDSA")), 3},
		"none":                         {settled(keys(key(2, store.StateActive), key(1, store.StateRetiring))), 0},
		"none that signs as a standby": {settled(keys(key(2, store.StateActive)), with(key(3, store.StatePublished), func(k *store.SigningKey) { k.Role = store.RoleStandby })), 0},
		"none that is somebody else's": {settled(keys(key(2, store.StateActive)), with(key(3, store.StatePublished), func(k *store.SigningKey) { k.Imported = true })), 0},
	} {
		if k, ok := rotation.Successor(c.l, store.RolePrimary); k.Serial != c.want || ok != (c.want != 0) {
			t.Errorf("%s: serial %d, %t; want %d", name, k.Serial, ok, c.want)
		}
	}
}

// Preview shows what Apply would find after a change.
func TestPreview(t *testing.T) {
	l := settled(of(3, both(asked, published(0))))
	hsm := l.Keyset
	hsm.Backend = "hsm"
	when := noon.Add(time.Hour)
	c := store.Change{
		Keyset: &hsm,
		Moves:  []store.Move{{Serial: 2, To: store.StateDistrusted}, {Serial: 3, ActivateAfter: when}, {Serial: 9, To: store.StateActive}},
		New:    []store.NewKey{{Role: store.RolePrimary, ActivateAfter: when}},
	}
	after := rotation.Preview(l, c)
	if len(after.Keys) != 2 || after.Keys[0].Serial != 3 || !after.Keys[0].ActivateAfter.Equal(when) || after.Keys[1].Backend != "hsm" ||
		after.Keys[1].Serial != 4 || !after.Keys[1].ActivateAfter.Equal(when) || after.Series.LastSerial != 4 || after.Keyset.Backend != "hsm" {
		t.Errorf("after the change it is %+v", after)
	}
	if len(l.Keys) != 2 || l.Keys[0].State != store.StateActive || l.Keyset.Backend != "local" || l.Series.LastSerial != 3 {
		t.Errorf("what was looked at became %+v", l)
	}
	same(t, "steps after a rotation by force", func() []string {
		after := rotation.Preview(l, rotation.Takeover(l, 3, "now", label))
		return steps(&after)
	}(), []string{"make 4 now", "remove 2 +1h1m"})
}

// Every step says in words why it is taken or what it waits for.
func TestEvidence(t *testing.T) {
	l := settled(of(3, asked), by(store.DistributionJWKS, "east"), acked("east", "zone-3-x"))
	s := rotation.Steps(l, rules)[0]
	text := strings.Join(s.Evidence, "\n")
	for _, want := range []string{"published at 2026-02-28T12:00:00Z; caches may hold older sets for 6m30s", "1 live replica serves it", "consumer east acknowledged it at 2026-03-01T12:00:00Z"} {
		if !strings.Contains(text, want) {
			t.Errorf("the evidence lacks %q:\n%s", want, text)
		}
	}
	if at, ok := rotation.Acknowledged(l, "east", "zone-2-x"); ok || !at.Equal(noon) {
		t.Errorf("east last said what it has at %s, %t", at, ok)
	}
	if at, ok := rotation.Acknowledged(l, "west", "zone-3-x"); ok || !at.IsZero() {
		t.Errorf("west last said what it has at %s, %t", at, ok)
	}
}
