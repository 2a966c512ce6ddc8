package bridge

import (
	"crypto/rand"
	"crypto/rsa"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/zonemint/zonemint/kuma"
	"github.com/zonemint/zonemint/kuma/controlplane"
)

func newPEM(t *testing.T) string {
	t.Helper()
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	k, err := kuma.NewPublicKey("any", private.Public())
	if err != nil {
		t.Fatal(err)
	}
	return k.PEM
}

func TestPlanKeys(t *testing.T) {
	one, two := newPEM(t), newPEM(t)
	secret := func(kid, data string, labels map[string]string) controlplane.Secret {
		return controlplane.Secret{Ref: kuma.Ref{Name: "zone-token-signing-public-key-" + kid}, Data: []byte(data), Labels: labels, Version: "7"}
	}
	mine := owned(nil)
	for _, c := range []struct {
		name    string
		keys    []key
		actual  []controlplane.Secret
		puts    []string // kids, with "!" behind them for drift
		deletes []string
		present []string
		foreign []string
		own     []string
		refused []string
	}{
		{name: "nothing is known: nothing is touched", actual: []controlplane.Secret{secret("zone-1-a", one, mine)}, foreign: []string{"zone-1-a"}},
		{name: "a new key", keys: []key{{"zone", "zone-1-a", one, true}}, puts: []string{"zone-1-a"}},
		{
			name: "a key that is there, marked or not", keys: []key{{"zone", "zone-1-a", one, true}, {"zone", "zone-2-b", two, true}},
			actual: []controlplane.Secret{secret("zone-1-a", one, mine), secret("zone-2-b", two, nil)}, present: []string{"zone-1-a", "zone-2-b"},
		},
		{
			name: "other bytes under our key ID are drift", keys: []key{{"zone", "zone-1-a", one, true}},
			actual: []controlplane.Secret{secret("zone-1-a", two, nil)}, puts: []string{"zone-1-a!"},
		},
		{
			name: "a key that has ended, marked", keys: []key{{"zone", "zone-1-a", one, false}, {"zone", "zone-2-b", two, true}},
			actual:  []controlplane.Secret{secret("zone-1-a", one, mine), secret("zone-2-b", two, mine)},
			deletes: []string{"zone-1-a"}, present: []string{"zone-2-b"},
		},
		{
			name: "a key that has ended, not marked, but that very key", keys: []key{{"zone", "zone-1-a", one, false}},
			actual: []controlplane.Secret{secret("zone-1-a", one, nil)}, deletes: []string{"zone-1-a"},
		},
		{
			name: "not marked, and another key", keys: []key{{"zone", "zone-1-a", one, false}},
			actual: []controlplane.Secret{secret("zone-1-a", two, nil)}, foreign: []string{"zone-1-a"},
		},
		{
			name: "somebody else's", keys: []key{{"zone", "zone-1-a", one, true}},
			actual:  []controlplane.Secret{secret("zone-1-a", one, mine), secret("theirs", two, nil)},
			present: []string{"zone-1-a"}, foreign: []string{"theirs"},
		},
		{
			name: "another zonemint's, which this one does not know", keys: []key{{"zone", "zone-1-a", one, true}},
			actual:  []controlplane.Secret{secret("zone-1-a", one, mine), secret("zone-1-f", two, mine)},
			present: []string{"zone-1-a"}, foreign: []string{"zone-1-f"},
		},
		{
			name: "ended in one keyset, wanted in another", keys: []key{{"zone", "old", one, false}, {"edge", "old", one, true}},
			actual: []controlplane.Secret{secret("old", one, mine)}, present: []string{"old"},
		},
		{name: "the control plane's own number", keys: []key{{"zone", "1", one, true}}, own: []string{"1"}},
		{name: "no RSA key", keys: []key{{"zone", "zone-1-a", "junk", true}}, refused: []string{"zone-1-a"}},
		{name: "a key ID that is no name", keys: []key{{"zone", "Zone_1", one, true}}, refused: []string{"Zone_1"}},
		{
			name: "two keys of one ID", keys: []key{{"zone", "old", one, true}, {"edge", "old", two, true}},
			puts: []string{"old"}, refused: []string{"old"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := planKeys(c.keys, c.actual)
			var puts, present, deletes, foreign, own, refused []string
			for _, put := range p.puts {
				mark := ""
				if put.drift {
					mark = "!"
				}
				puts = append(puts, put.kid+mark)
				if err := controlplane.Check(put.secret); err != nil {
					t.Error(err)
				}
				if !put.secret.Owned() {
					t.Error("it is not marked")
				}
			}
			for _, k := range p.present {
				present = append(present, k.kid)
			}
			for _, s := range p.deletes {
				deletes = append(deletes, strings.TrimPrefix(s.Ref.Name, "zone-token-signing-public-key-"))
			}
			for _, r := range p.foreign {
				foreign = append(foreign, strings.TrimPrefix(r.Name, "zone-token-signing-public-key-"))
			}
			for _, k := range p.own {
				own = append(own, k.kid)
			}
			for _, r := range p.refused {
				refused = append(refused, r.kid)
			}
			for what, pair := range map[string][2][]string{
				"puts": {puts, c.puts}, "present": {present, c.present}, "deletes": {deletes, c.deletes},
				"foreign": {foreign, c.foreign}, "own": {own, c.own}, "refused": {refused, c.refused},
			} {
				if !slices.Equal(pair[0], pair[1]) {
					t.Errorf("%s: got %v, want %v", what, pair[0], pair[1])
				}
			}
		})
	}
}

func TestPlanList(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	live, justOver, over := now.Add(time.Hour).Unix(), now.Add(-time.Second).Unix(), now.Add(-2*expiryGrace).Unix()
	for _, c := range []struct {
		name     string
		there    bool
		actual   string
		revoked  []revoked
		verdicts map[string]verdict
		want     string
		change   bool
		added    int
		removed  int
		others   int
		untidy   bool
		ask      []string
	}{
		{name: "nothing and nothing"},
		{name: "a first entry", revoked: []revoked{{"a", live}}, want: "a", change: true, added: 1},
		{name: "all there", there: true, actual: "a,b", revoked: []revoked{{"b", live}, {"a", live}}, want: "a,b"},
		{
			name: "theirs keep their places", there: true, actual: "x,a,y", revoked: []revoked{{"a", live}, {"b", live}},
			verdicts: map[string]verdict{"x": keep, "y": keep}, want: "x,a,y,b", change: true, added: 1, others: 2,
		},
		{
			name: "nobody was asked yet: all is kept", there: true, actual: "x,a", revoked: []revoked{{"a", live}},
			want: "x,a", others: 1, ask: []string{"x"},
		},
		{
			name: "one is gone", there: true, actual: "x,a,y", revoked: []revoked{{"a", live}},
			verdicts: map[string]verdict{"x": gone, "y": keep}, want: "a,y", change: true, removed: 1, others: 1,
		},
		{
			name: "just expired: zones may be behind", there: true, actual: "a", revoked: []revoked{{"a", justOver}}, want: "a",
		},
		{
			name: "expired by this clock only", there: true, actual: "a", revoked: []revoked{{"a", over}},
			verdicts: map[string]verdict{"a": keep}, want: "a",
		},
		{
			name: "expired", there: true, actual: "a,b", revoked: []revoked{{"a", over}, {"b", live}},
			verdicts: map[string]verdict{"a": gone}, want: "b", change: true, removed: 1,
		},
		{
			name: "expired and not there", there: true, actual: "b", revoked: []revoked{{"a", over}, {"b", live}},
			verdicts: map[string]verdict{"a": gone}, want: "b",
		},
		{
			name: "expired by this clock only, and not there", there: true, actual: "b", revoked: []revoked{{"a", over}, {"b", live}},
			want: "b,a", change: true, added: 1, ask: []string{"a"},
		},
		{
			name: "the last one is gone", there: true, actual: "a", verdicts: map[string]verdict{"a": gone}, change: true, removed: 1,
		},
		{
			name: "written by hand", there: true, actual: " a, b\nc,,", revoked: []revoked{{"a", live}, {"b", live}, {"c", live}},
			want: "a,b,c", change: true, untidy: true,
		},
		{
			name: "a newline at the end", there: true, actual: "a,b\n", revoked: []revoked{{"a", live}, {"b", live}},
			want: "a,b", change: true, untidy: true,
		},
		{name: "an entry twice", there: true, actual: "a,a", revoked: []revoked{{"a", live}}, want: "a", change: true, untidy: true},
		{name: "an empty secret", there: true, change: true, untidy: true},
		{name: "in two keysets", revoked: []revoked{{"a", live}, {"a", live}}, want: "a", change: true, added: 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := planList(listInput{
				there: c.there, actual: c.actual, revoked: c.revoked, now: now,
				verdict: func(jti string) verdict { return c.verdicts[jti] },
			})
			text, err := p.list.Encode()
			if err != nil {
				t.Fatal(err)
			}
			if text != c.want || p.change != c.change || len(p.added) != c.added || len(p.removed) != c.removed || p.others != c.others ||
				p.untidy != c.untidy || !slices.Equal(p.ask, c.ask) {
				t.Errorf("got %q and %+v", text, p)
			}
		})
	}
}

func TestFeedKeepsWhatItHasDuringAReset(t *testing.T) {
	var f feed
	now := time.Unix(1_800_000_000, 0)
	f.take(page("e1", 2, pageOf{revoked: []string{"a", "b"}}), now)
	if got := jtis(f.set.all()); !slices.Equal(got, []string{"a", "b"}) || !f.complete {
		t.Fatalf("got %v", got)
	}
	f.take(page("e1", 3, pageOf{lifted: []string{"a"}}), now)
	f.take(page("e1", 4, pageOf{revoked: []string{"a"}}), now)
	if got := jtis(f.set.all()); !slices.Equal(got, []string{"b", "a"}) {
		t.Fatalf("got %v after one was lifted and revoked again", got)
	}
	f.take(page("e2", 1, pageOf{reset: true, more: true, revoked: []string{"c"}}), now)
	if got := jtis(f.set.all()); !slices.Equal(got, []string{"b", "a", "c"}) {
		t.Fatalf("got %v in the middle of a reset", got)
	}
	f.take(page("e2", 2, pageOf{revoked: []string{"a"}}), now)
	if got := jtis(f.set.all()); !slices.Equal(got, []string{"c", "a"}) {
		t.Fatalf("got %v after a reset", got)
	}
}

func TestFeedForgetsWhatZonemintSaysHasExpired(t *testing.T) {
	var f feed
	now := time.Unix(1_800_000_000, 0)
	expired := func(jti string) bool { return jti == "a" }
	f.take(page("e", 1, pageOf{revoked: []string{"a"}, exp: now.Unix()}), now)
	f.forget(now, func(string) bool { return false })
	f.take(page("e", 2, pageOf{revoked: []string{"b"}, exp: now.Unix()}), now)
	f.forget(now.Add(time.Second), expired)
	if got := jtis(f.set.all()); !slices.Equal(got, []string{"a", "b"}) {
		t.Fatalf("got %v", got)
	}
	f.forget(now.Add(2*sweepInterval), expired)
	if got := jtis(f.set.all()); !slices.Equal(got, []string{"b"}) {
		t.Fatalf("got %v", got)
	}
}

func jtis(all []revoked) (out []string) {
	for _, r := range all {
		out = append(out, r.jti)
	}
	return out
}
