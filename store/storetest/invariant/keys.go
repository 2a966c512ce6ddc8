package invariant

import (
	"slices"
	"strings"
)

// isReplica says whether the audit's actor is a replica that does what is due,
// and not a person.
func isReplica(actor string) bool { return strings.HasPrefix(actor, "replica/") }

// check checks that a row fits its state.
func (k *key) check(f *faults) {
	made, was := !k.published.IsZero(), !k.activated.IsZero()
	ended := false
	switch k.state {
	case "creating":
		k.want(f, !made && !was, "was never published")
	case "failed":
		k.want(f, !made && !was, "was never published")
		ended = true
	case "published":
		k.want(f, made && !was, "has been published and has never signed")
	case "active":
		k.want(f, made && was && !k.imported, "has been published and activated, and not imported")
	case "retiring":
		k.want(f, made && was != k.imported && !k.retired.IsZero(), "has been published and retired, and either signed or imported")
	case "removed":
		k.want(f, made && was != k.imported && !k.retired.IsZero(), "has been published and retired, and either signed or imported")
		ended = true
	case "abandoned":
		k.want(f, made && !was, "has been published and has never signed")
		ended = true
	case "distrusted":
		k.want(f, made, "has been published")
		ended = true
	default:
		f.add("key %s is %q, which is no state", k.name, k.state)
	}
	k.want(f, k.gone.IsZero() == (!ended || k.state == "failed"), "has the time of its removal if it was ever published and has ended")
	k.want(f, ended || k.destroyed.IsZero(), "has ended if it is destroyed")
	k.checkMade(f, made)
	k.checkTimes(f)
}

// checkMade checks what is known of a key as soon as it is published.
func (k *key) checkMade(f *faults, made bool) {
	known := k.kid != "" && k.thumbprint != "" && len(k.public) > 0
	unknown := k.kid == "" && k.thumbprint == "" && len(k.public) == 0
	k.want(f, made && known || !made && unknown, "has a kid, a thumbprint and a public key exactly if it was published")
	ref := len(k.ref) > 0
	k.want(f, ref == (made && !k.imported && k.destroyed.IsZero()), "has a reference exactly if its backend has it")
	k.want(f, k.imported == (k.backend == ""), "has a backend exactly if it was not imported")
	k.want(f, k.imported || k.trustedUntil.IsZero(), "has no trusted_until, unless it was imported")
}

// checkTimes checks what comes before what. A key that was activated again has
// been retired before.
func (k *key) checkTimes(f *faults) {
	last := k.created
	for _, next := range []stamp{k.published, k.activated, k.gone, k.destroyed} {
		if next.IsZero() {
			continue
		}
		k.want(f, !next.Before(last.Time), "has its times in order")
		last = next
	}
	k.want(f, k.retired.IsZero() || !k.retired.Before(k.published.Time), "was published before it was retired")
	if k.state == "retiring" || k.state == "removed" {
		k.want(f, !k.retired.Before(k.activated.Time), "was activated before it was retired")
	}
}

func (k *key) want(f *faults, ok bool, what string) {
	if !ok {
		f.add("key %s is %s, but it does not hold that it %s", k.name, k.state, what)
	}
}

// checkEnd checks that replicas have removed nothing that somebody still needed.
// People may, by force.
func (d *data) checkEnd(f *faults, k *key) {
	if k.state != "removed" || d.person(k, "signing-key.removed") {
		return
	}
	if k.imported {
		k.want(f, !k.trustedUntil.IsZero() && !k.gone.Before(k.trustedUntil.Time), "was trusted for as long as was asked for")
		return
	}
	k.want(f, !k.gone.Before(k.lastExpiry.Time), "was removed after the expiry of its last token")
}

func checkSerials(f *faults, keyset string, keys []key) {
	for i, k := range keys {
		if k.serial != i+1 {
			f.add("keyset %s has serial %d in place of %d", keyset, k.serial, i+1)
			return
		}
	}
}

func checkActive(f *faults, keys []key) {
	active := map[string]string{}
	for _, k := range keys {
		if k.state != "active" {
			continue
		}
		if other, ok := active[k.role]; ok {
			f.add("keys %s and %s are both active as %s", other, k.name, k.role)
		}
		active[k.role] = k.name
	}
}

// checkSigns checks that a keyset that has signed once goes on signing, unless
// somebody has taken the key that did out of use.
func (d *data) checkSigns(f *faults, keyset string, keys []key) {
	var last *key
	for i := range keys {
		k := &keys[i]
		if k.role != "primary" || k.activated.IsZero() {
			continue
		}
		if k.state == "active" {
			return
		}
		if last == nil || !k.activated.Before(last.activated.Time) {
			last = k
		}
	}
	if last == nil || last.state == "distrusted" || d.person(last, "signing-key.retiring") {
		return
	}
	f.add("keyset %s has no active key, and nobody has retired or distrusted %s", keyset, last.name)
}

// checkUnique checks what the schema promises too.
func (d *data) checkUnique(f *faults) {
	seen := map[string]string{}
	once := func(k *key, what, value string) {
		if value == "" {
			return
		}
		id := what + "\x00" + value
		if other, ok := seen[id]; ok {
			f.add("keys %s and %s have the same %s", other, k.name, what)
		}
		seen[id] = k.name
	}
	for i := range d.keys {
		k := &d.keys[i]
		once(k, "label", k.label)
		once(k, "thumbprint", k.thumbprint)
		if k.kid != "" {
			once(k, "kid", k.keyset+"\x00"+k.kid)
		}
		if !slices.ContainsFunc(d.keysets, func(ks keyset) bool { return ks.id == k.keyset }) {
			f.add("key %s belongs to no keyset", k.name)
		}
	}
}
