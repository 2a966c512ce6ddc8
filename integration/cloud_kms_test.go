package integration

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"cloud.google.com/go/kms/apiv1/kmspb"
	"google.golang.org/protobuf/proto"

	"github.com/zonemint/zonemint/integration/awskmsdouble"
	"github.com/zonemint/zonemint/integration/gcpkmsdouble"
)

// cloud is a double of a cloud's KMS.
type cloud interface {
	// settings are the lines of a configuration with it, as the backend "kms".
	settings() string
	// environment lets zonemint in.
	environment() []string
	// calls counts the requests that have arrived, by operation.
	calls() map[string]int
	// signs and makes are the operations that do so.
	signs() string
	makes() string
	// limit bounds the signatures in a second; 0 bounds nothing.
	limit(perSecond float64)
	// countSigned counts the signatures that are made from now on.
	countSigned() *atomic.Int64
	// loseKey has the next key be made and nobody told, until heal is called.
	loseKey() (heal func())
	// labels has the label of each key that signs, or will: one of two keys comes
	// twice.
	labels() []string
}

// How late a new key shows at the most, where it does, and how long zonemint is told
// to wait for that, where it can be told.
const (
	lateMost   = 1500 * time.Millisecond
	lateWindow = 2 * time.Second
)

// startCloud starts a double, whose new keys show at once, or late.
type startCloud func(t *testing.T, late bool) cloud

// onBothClouds runs a test with each of the doubles.
func onBothClouds(t *testing.T, test func(*testing.T, startCloud)) {
	clouds := map[string]startCloud{"awskms": startAWS, "gcpkms": startGCP}
	for _, name := range slices.Sorted(maps.Keys(clouds)) {
		t.Run(name, func(t *testing.T) { test(t, clouds[name]) })
	}
}

// inCloud returns settings with short waits and keysets with keys in a cloud.
func inCloud(c cloud, keysets ...keyset) settings {
	s := moving(c.settings())
	s.keysets, s.more = keysets, "default_backend: kms\n"+s.more
	return s
}

// launchWith starts a server that a cloud lets in, and does not wait.
func (in *installation) launchWith(t *testing.T, c cloud) *server {
	t.Helper()
	cmd := exec.Command(os.Getenv(binaryVariable), "serve", "--config", in.config)
	cmd.Env = append(os.Environ(), c.environment()...)
	return launchCommand(t, cmd)
}

// startWith starts a server that a cloud lets in, and waits until all keys are made.
func (in *installation) startWith(t *testing.T, c cloud) *server {
	t.Helper()
	s := in.launchWith(t, c)
	s.awaitListening(t)
	eventually(t, recovery, "every keyset has a key that signs and a successor", func() bool {
		all := firstKeys(t, in.db)
		for _, keys := range all {
			if !slices.Equal(keys, []string{"1 active", "2 published"}) {
				return false
			}
		}
		return len(all) > 0
	})
	return s
}

type awsCloud struct{ *awskmsdouble.Server }

func startAWS(t *testing.T, late bool) cloud {
	t.Helper()
	s, err := awskmsdouble.Start(awskmsdouble.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { shut(s) })
	c := awsCloud{s}
	if late {
		c.dawdle()
	}
	return c
}

func (c awsCloud) settings() string {
	return fmt.Sprintf("backends:\n  kms:\n    type: awskms\n    region: %s\n    endpoint: %s\n    consistency_window: %s\n",
		c.Options().Region, c.URL(), lateWindow)
}

func (c awsCloud) environment() (env []string) {
	for name, value := range c.Env() {
		env = append(env, name+"="+value)
	}
	return env
}

func (c awsCloud) calls() map[string]int { return c.Calls() }
func (c awsCloud) signs() string         { return "Sign" }
func (c awsCloud) makes() string         { return "CreateKey" }

func (c awsCloud) limit(perSecond float64) {
	if perSecond == 0 {
		perSecond = 1e9
	}
	c.Limit(c.signs(), perSecond)
}

func (c awsCloud) countSigned() *atomic.Int64 {
	n := &atomic.Int64{}
	c.Inject(awskmsdouble.Fault{Op: c.signs(), Times: -1, Mangle: func(map[string]any) { n.Add(1) }})
	return n
}

// dawdle has new keys show late, and later still to Sign.
func (c awsCloud) dawdle() {
	c.SetDelays(awskmsdouble.Delays{
		Creating: between(0, lateMost/4), Keys: between(lateMost*2/3, lateMost), Sign: between(lateMost*2/3, lateMost), Tags: lateWindow,
	})
}

func (c awsCloud) loseKey() (heal func()) {
	c.Inject(awskmsdouble.Fault{Op: c.makes(), Lost: true})
	return func() { c.Heal(); c.dawdle() }
}

func (c awsCloud) labels() (all []string) {
	for _, k := range c.Keys() {
		all = append(all, k.Tags["zonemint:label"])
	}
	return all
}

type gcpCloud struct{ *gcpkmsdouble.Server }

func startGCP(t *testing.T, late bool) cloud {
	t.Helper()
	var opts gcpkmsdouble.Options
	if late {
		opts.Visibility, opts.Generation = between(lateMost/2, lateMost), between(0, lateMost/2)
	}
	return gcpCloud{gcpkmsdouble.Start(t, opts)}
}

func (c gcpCloud) settings() string {
	return fmt.Sprintf("backends:\n  kms:\n    type: gcpkms\n    key_ring: %s\n    insecure_endpoint: %s\n", gcpkmsdouble.KeyRing, c.Addr())
}

func (c gcpCloud) environment() []string { return nil }

func (c gcpCloud) calls() map[string]int {
	all := map[string]int{}
	for _, m := range kmspb.KeyManagementService_ServiceDesc.Methods {
		if n := c.Calls(m.MethodName); n > 0 {
			all[m.MethodName] = n
		}
	}
	return all
}

func (c gcpCloud) signs() string           { return "AsymmetricSign" }
func (c gcpCloud) makes() string           { return "CreateCryptoKey" }
func (c gcpCloud) limit(perSecond float64) { c.Limit(c.signs(), perSecond) }

func (c gcpCloud) countSigned() *atomic.Int64 {
	n := &atomic.Int64{}
	c.Inject(gcpkmsdouble.Fault{Op: c.signs(), Answer: func(proto.Message) { n.Add(1) }})
	return n
}

func (c gcpCloud) loseKey() (heal func()) {
	return c.Inject(gcpkmsdouble.Fault{Op: c.makes(), Times: 1, Cut: true, Apply: true})
}

func (c gcpCloud) labels() (all []string) {
	for _, k := range c.Keys() {
		for _, v := range k.Versions {
			if v.State == kmspb.CryptoKeyVersion_ENABLED || v.State == kmspb.CryptoKeyVersion_PENDING_GENERATION {
				all = append(all, k.Labels["zonemint-label"])
			}
		}
		if len(k.Versions) == 0 {
			all = append(all, k.Labels["zonemint-label"])
		}
	}
	return all
}
