package bridge

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/zonemint/zonemint/kuma"
	"github.com/zonemint/zonemint/kuma/controlplane"
)

// key is a key of a zone keyset, as zonemint says.
type key struct {
	keyset string
	kid    string
	pem    string
	// wanted says that verifiers should have the key; otherwise it has ended. There
	// is nothing in between: of a key without a kid nothing is known yet.
	wanted bool
}

// keyPlan says what becomes of the secrets of public keys.
type keyPlan struct {
	puts    []keyPut
	deletes []controlplane.Secret
	present []key        // wanted, and there with the right bytes
	own     []key        // which control planes gave their numbers to, and have
	refused []keyProblem // which a control plane would choke on
	foreign []kuma.Ref   // which are somebody else's
}

type keyPut struct {
	key
	secret controlplane.Secret
	drift  bool // what was there was not zonemint's
}

type keyProblem struct {
	key
	err error
}

// planKeys compares the keys that zonemint has with the secrets of a control plane.
//
// A secret is deleted only on zonemint's word that this very key has ended, and
// only if it is marked as zonemint's or holds that key. So no answer that is missing
// or empty can take a key away, and neither can another zonemint that writes to the
// same control plane.
func planKeys(keys []key, actual []controlplane.Secret) keyPlan {
	var p keyPlan
	there := map[kuma.Ref]controlplane.Secret{}
	for _, s := range actual {
		there[s.Ref] = s
	}
	wanted := p.wanted(keys)
	for _, put := range wanted {
		now, ok := there[put.secret.Ref]
		switch {
		case ok && string(now.Data) == put.pem:
			p.present = append(p.present, put.key)
			continue
		case ok:
			put.drift, put.secret.Version = true, now.Version
			put.secret.Labels = owned(now.Labels)
		}
		p.puts = append(p.puts, put)
	}
	for _, s := range actual {
		if slices.ContainsFunc(wanted, func(w keyPut) bool { return w.secret.Ref == s.Ref }) {
			continue
		}
		if ended(keys, s) {
			p.deletes = append(p.deletes, s)
		} else {
			p.foreign = append(p.foreign, s.Ref)
		}
	}
	return p
}

// wanted returns the secrets that should be there, by kid, and sorts out the keys
// that cannot be.
func (p *keyPlan) wanted(keys []key) []keyPut {
	found := map[string]keyPut{}
	for _, k := range keys {
		if !k.wanted {
			continue
		}
		put, err := newKeyPut(k)
		switch other, twice := found[k.kid]; {
		case errors.Is(err, kuma.ErrOwnKeyID):
			p.own = append(p.own, k)
		case err != nil:
			p.refused = append(p.refused, keyProblem{k, err})
		case twice && other.pem != put.pem:
			// Which of the two holds the place cannot be decided here.
			p.refused = append(p.refused, keyProblem{k, fmt.Errorf("key ID %q is also that of another key, in keyset %s", k.kid, other.keyset)})
		default:
			found[k.kid] = put
		}
	}
	var out []keyPut
	for _, put := range found {
		out = append(out, put)
	}
	slices.SortFunc(out, func(a, b keyPut) int { return strings.Compare(a.kid, b.kid) })
	return out
}

func newKeyPut(k key) (keyPut, error) {
	ref, err := kuma.PublicKeySecret(k.kid)
	if err != nil {
		return keyPut{}, err
	}
	parsed, err := kuma.ParsePublicKey(k.kid, k.pem)
	if err != nil {
		return keyPut{}, err
	}
	k.pem = parsed.PEM
	return keyPut{key: k, secret: controlplane.Secret{Ref: ref, Labels: owned(nil), Data: []byte(parsed.PEM)}}, nil
}

// owned returns the labels, and the one that marks a secret as zonemint's.
func owned(labels map[string]string) map[string]string {
	out := map[string]string{controlplane.OwnerLabel: controlplane.Owner}
	for name, value := range labels {
		if name != controlplane.OwnerLabel {
			out[name] = value
		}
	}
	return out
}

// ended says whether the secret is of a key that zonemint says has ended.
func ended(keys []key, s controlplane.Secret) bool {
	kid, ok := kuma.KeyIDOf(s.Ref)
	if !ok {
		return false
	}
	return slices.ContainsFunc(keys, func(k key) bool {
		return !k.wanted && k.kid == kid && (s.Owned() || sameKey(k, s))
	})
}

// sameKey says whether the secret holds that key, in whichever form.
func sameKey(k key, s controlplane.Secret) bool {
	a, err := kuma.ParsePublicKey(k.kid, k.pem)
	b, berr := kuma.ParsePublicKey(k.kid, string(s.Data))
	return err == nil && berr == nil && a.PEM == b.PEM
}
