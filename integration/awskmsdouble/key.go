package awskmsdouble

import (
	"cmp"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"maps"
	"slices"
	"strings"
	"time"
)

// The states of a key.
const (
	Enabled         = "Enabled"
	Disabled        = "Disabled"
	PendingDeletion = "PendingDeletion"
	// PendingReplicaDeletion is for a multi-Region primary key that waits for the
	// deletion of its replicas.
	PendingReplicaDeletion = "PendingReplicaDeletion"

	creating = "Creating"
)

// key is one KMS key.
type key struct {
	id, arn, spec, usage, description, manager, origin string
	multiRegion                                        bool
	private                                            crypto.Signer // nil if it is symmetric
	policy                                             *policy
	tags                                               map[string]string
	state                                              string
	created, deletion, used                            time.Time

	visible, described, signable, tagged, ready time.Time // from when on it is so

	replicas []string // Regions
}

// Key is what there is to know about a key of the server.
type Key struct {
	ID, ARN, Spec, Description, State string
	Tags                              map[string]string
	Aliases                           []string
	Created                           time.Time
	MultiRegion                       bool
}

// Keys returns all keys, of whatever state, also those that nobody can see yet,
// sorted by ID.
func (s *Server) Keys() []Key {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []Key
	for _, k := range s.sorted() {
		one := Key{ID: k.id, ARN: k.arn, Spec: k.spec, Description: k.description, State: k.state, Tags: maps.Clone(k.tags), Created: k.created, MultiRegion: k.multiRegion}
		for _, a := range s.aliases {
			if a.target == k.id {
				one.Aliases = append(one.Aliases, a.name)
			}
		}
		slices.Sort(one.Aliases)
		all = append(all, one)
	}
	return all
}

// sorted returns all keys that have not been deleted by now. The lock is held.
func (s *Server) sorted() []*key {
	now := s.opts.Now()
	maps.DeleteFunc(s.keys, func(_ string, k *key) bool { return k.state == PendingDeletion && !now.Before(k.deletion) })
	return slices.SortedFunc(maps.Values(s.keys), func(a, b *key) int { return cmp.Compare(a.id, b.id) })
}

// stateAt is the state of the key that callers see.
func (k *key) stateAt(now time.Time) string {
	if now.Before(k.ready) {
		return creating
	}
	return k.state
}

// Planted is a key that somebody else has made. The zero value is for RSA_2048.
type Planted struct {
	Spec        string
	Description string
	Tags        map[string]string
	Manager     string // CUSTOMER, or AWS
	Origin      string // AWS_KMS, or EXTERNAL
	State       string // Enabled
	Policy      string // JSON; empty for the default
}

// Plant puts a key into the server and returns its ARN.
func (s *Server) Plant(p Planted) (arn string, _ error) {
	spec := cmp.Or(p.Spec, "RSA_2048")
	private, err := generate(spec)
	if err != nil {
		return "", err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	k := s.newKey(spec, "SIGN_VERIFY", private, false)
	if spec == symmetric {
		k.usage = "ENCRYPT_DECRYPT"
	}
	k.description, k.tags = p.Description, maps.Clone(p.Tags)
	k.manager, k.origin, k.state = cmp.Or(p.Manager, "CUSTOMER"), cmp.Or(p.Origin, "AWS_KMS"), cmp.Or(p.State, Enabled)
	if p.Policy != "" {
		parsed, refused := s.parsePolicy(p.Policy, true)
		if refused != nil {
			return "", refusedError(refused.Message)
		}
		k.policy = parsed
	}
	s.keys[k.id] = k
	return k.arn, nil
}

type refusedError string

func (e refusedError) Error() string { return string(e) }

// Break gives a key another private half, as if the service signed with a wrong one.
// Its public half, as the service shows it, becomes that of the new one.
func (s *Server) Break(arn string) error {
	s.mu.Lock()
	k := s.byARN(arn)
	s.mu.Unlock()
	if k == nil {
		return refusedError("there is no key " + arn)
	}
	private, err := generate(k.spec)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	k.private = private
	return nil
}

// SetState sets the state of a key.
func (s *Server) SetState(arn, state string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if k := s.byARN(arn); k != nil {
		k.state, k.deletion = state, s.opts.Now().AddDate(0, 0, 30)
	}
}

// Replicate says in which Regions a multi-Region key has replicas. They are not keys of
// the server.
func (s *Server) Replicate(arn string, regions ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if k := s.byARN(arn); k != nil && k.multiRegion {
		k.replicas = regions
	}
}

// byARN returns nil if there is no such key. The lock is held.
func (s *Server) byARN(arn string) *key {
	_, id, _ := strings.Cut(arn, ":key/")
	return s.keys[id]
}

// newKey makes a key and does not put it into the server. The lock is held.
func (s *Server) newKey(spec, usage string, private crypto.Signer, multiRegion bool) *key {
	now := s.opts.Now()
	id := requestID()
	if multiRegion {
		id = "mrk-" + strings.ReplaceAll(id, "-", "")
	}
	return &key{
		id: id, arn: "arn:aws:kms:" + s.opts.Region + ":" + s.opts.Account + ":key/" + id, spec: spec, usage: usage, manager: "CUSTOMER", origin: "AWS_KMS",
		multiRegion: multiRegion, private: private, state: Enabled, created: now,
		visible: now.Add(s.delays.Keys), described: now.Add(max(s.delays.Keys, s.delays.Describe)), signable: now.Add(max(s.delays.Keys, s.delays.Sign)), tagged: now.Add(max(s.delays.Keys, s.delays.Tags)), ready: now.Add(s.delays.Creating),
	}
}

const symmetric = "SYMMETRIC_DEFAULT"

// signingAlgorithms are those of each kind of key that signs, as "Key spec reference"
// has them.
func signingAlgorithms(spec string) []string {
	switch {
	case strings.HasPrefix(spec, "RSA_"):
		return []string{"RSASSA_PSS_SHA_256", "RSASSA_PSS_SHA_384", "RSASSA_PSS_SHA_512",
			"RSASSA_PKCS1_V1_5_SHA_256", "RSASSA_PKCS1_V1_5_SHA_384", "RSASSA_PKCS1_V1_5_SHA_512"}
	case spec == "ECC_NIST_P256":
		return []string{"ECDSA_SHA_256"}
	case spec == "ECC_NIST_P384":
		return []string{"ECDSA_SHA_384"}
	case spec == "ECC_NIST_P521":
		return []string{"ECDSA_SHA_512"}
	case spec == "ECC_NIST_EDWARDS25519":
		return []string{"ED25519_SHA_512", "ED25519_PH_SHA_512"}
	default:
		return nil
	}
}

// generate makes a private key; nil for a symmetric one.
func generate(spec string) (crypto.Signer, error) {
	switch spec {
	case symmetric:
		return nil, nil //nolint:nilnil // there is no private half
	case "RSA_2048":
		return rsa.GenerateKey(rand.Reader, 2048)
	case "RSA_3072":
		return rsa.GenerateKey(rand.Reader, 3072)
	case "RSA_4096":
		return rsa.GenerateKey(rand.Reader, 4096)
	case "ECC_NIST_P256":
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "ECC_NIST_P384":
		return ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case "ECC_NIST_P521":
		return ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	case "ECC_NIST_EDWARDS25519":
		_, private, err := ed25519.GenerateKey(rand.Reader)
		return private, err
	default:
		return nil, refusedError("no such key spec: " + spec)
	}
}

// find returns the key that an ID, an ARN or, where that is allowed, an alias stands
// for, if the caller may do that to it. The lock is held.
func (s *Server) find(action, id string, aliases bool) (*key, *Exception) {
	k, e := s.resolve(id, aliases)
	if e != nil {
		return nil, e
	}
	from := k.visible
	switch action {
	case "kms:DescribeKey":
		from = k.described
	case "kms:Sign":
		from = k.signable
	}
	if now := s.opts.Now(); now.Before(from) || k.state == PendingDeletion && !now.Before(k.deletion) {
		return nil, refuse("NotFoundException", "Key '%s' does not exist", k.arn)
	}
	return k, s.authorize(action, k.arn, k)
}

func (s *Server) resolve(id string, aliases bool) (*key, *Exception) {
	const longest = 2048
	if id == "" || len(id) > longest {
		return nil, invalid(id, "keyId", "have length between 1 and 2048")
	}
	name := id
	if strings.HasPrefix(id, "arn:") {
		parts := strings.SplitN(id, ":", 6)
		if len(parts) != 6 || parts[2] != "kms" || !strings.HasPrefix(parts[5], "key/") && !strings.HasPrefix(parts[5], "alias/") {
			return nil, refuse("InvalidArnException", "%s", id)
		}
		if parts[3] != s.opts.Region {
			return nil, refuse("NotFoundException", "Invalid arn %s", parts[3])
		}
		name = strings.TrimPrefix(parts[5], "key/")
		if parts[4] != s.opts.Account {
			name = ""
		}
	}
	if strings.HasPrefix(name, "alias/") {
		if !aliases {
			return nil, refuse("NotFoundException", "Invalid keyId '%s'", id)
		}
		a, ok := s.aliases[name]
		if !ok {
			return nil, refuse("NotFoundException", "Alias arn:aws:kms:%s:%s:%s is not found.", s.opts.Region, s.opts.Account, name)
		}
		name = a.target
	}
	k, ok := s.keys[name]
	if !ok {
		return nil, refuse("NotFoundException", "Key '%s' does not exist", id)
	}
	return k, nil
}

// refuseUnless refuses what a key cannot do in its state, in the words of "Key states of
// AWS KMS keys".
func (k *key) refuseUnless(now time.Time, states ...string) *Exception {
	state := k.stateAt(now)
	if slices.Contains(states, state) {
		return nil
	}
	switch state {
	case Disabled:
		return refuse("DisabledException", "%s is disabled.", k.arn)
	case PendingDeletion:
		return refuse("KMSInvalidStateException", "%s is pending deletion.", k.arn)
	case PendingReplicaDeletion:
		return refuse("KMSInvalidStateException", "%s is pending replica deletion.", k.arn)
	case creating:
		return refuse("KMSInvalidStateException", "%s is creating.", k.arn)
	default:
		return refuse("KMSInvalidStateException", "%s is %s.", k.arn, strings.ToLower(state))
	}
}
