package gcpkms_test

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/zonemint/zonemint/backends/gcpkms"
	"github.com/zonemint/zonemint/signer"
)

const ring = "projects/p/locations/europe-west4/keyRings/r"

func TestOptions(t *testing.T) {
	for name, c := range map[string]struct {
		o    gcpkms.Options
		want string // in the error; empty: it opens
	}{
		"a full name":                {gcpkms.Options{KeyRing: ring}, ""},
		"in parts":                   {gcpkms.Options{Project: "p", Location: "global", KeyRing: "r"}, ""},
		"a project of a domain":      {gcpkms.Options{KeyRing: "projects/example.com:p/locations/us/keyRings/r"}, ""},
		"an emulator":                {gcpkms.Options{KeyRing: ring, InsecureEndpoint: "localhost:9010"}, ""},
		"an emulator on IPv6":        {gcpkms.Options{KeyRing: ring, InsecureEndpoint: "[::1]:9010"}, ""},
		"another endpoint":           {gcpkms.Options{KeyRing: ring, Endpoint: "cloudkms.europe-west4.rep.googleapis.com:443"}, ""},
		"a credential to come":       {gcpkms.Options{KeyRing: ring, CredentialsFile: "/not/there/yet"}, ""},
		"the longest time":           {gcpkms.Options{KeyRing: ring, DestroyScheduledDuration: 120 * 24 * time.Hour}, ""},
		"nothing":                    {gcpkms.Options{}, "key_ring"},
		"no location":                {gcpkms.Options{Project: "p", KeyRing: "r"}, "key_ring"},
		"no project":                 {gcpkms.Options{Location: "l", KeyRing: "r"}, "key_ring"},
		"both":                       {gcpkms.Options{Project: "p", Location: "l", KeyRing: ring}, "key_ring"},
		"a full name and a location": {gcpkms.Options{Location: "l", KeyRing: ring}, "key_ring"},
		"a key":                      {gcpkms.Options{KeyRing: ring + "/cryptoKeys/k"}, "key_ring"},
		"another level":              {gcpkms.Options{KeyRing: ring, ProtectionLevel: "HSM"}, "protection_level"},
		"destroyed at once":          {gcpkms.Options{KeyRing: ring, DestroyScheduledDuration: time.Hour}, "destroy_scheduled_duration"},
		"destroyed next year":        {gcpkms.Options{KeyRing: ring, DestroyScheduledDuration: 121 * 24 * time.Hour}, "destroy_scheduled_duration"},
		"a URL":                      {gcpkms.Options{KeyRing: ring, Endpoint: "https://cloudkms.googleapis.com"}, "endpoint"},
		"a password":                 {gcpkms.Options{KeyRing: ring, Endpoint: "me:secret@host:443"}, "endpoint"},
		"an emulator elsewhere":      {gcpkms.Options{KeyRing: ring, InsecureEndpoint: "10.0.0.1:9010"}, "insecure_endpoint"},
		"a name that may be here":    {gcpkms.Options{KeyRing: ring, InsecureEndpoint: "localhost.example.com:9010"}, "insecure_endpoint"},
		"both endpoints":             {gcpkms.Options{KeyRing: ring, InsecureEndpoint: "127.0.0.1:1", Endpoint: "h:1"}, "insecure_endpoint"},
		"a credential for nobody":    {gcpkms.Options{KeyRing: ring, InsecureEndpoint: "127.0.0.1:1", CredentialsFile: "f"}, "credentials_file"},
		"a CA that is not there":     {gcpkms.Options{KeyRing: ring, CAFile: "/not/there"}, "ca_file"},
		"negative time":              {gcpkms.Options{KeyRing: ring, RequestTimeout: -1}, "request_timeout"},
		"negative wait":              {gcpkms.Options{KeyRing: ring, GenerationTimeout: -1}, "generation_timeout"},
		"many connections":           {gcpkms.Options{KeyRing: ring, MaxConnections: 1000}, "max_connections"},
		"negative rate":              {gcpkms.Options{KeyRing: ring, MaxSignaturesPerSecond: -1}, "max_signatures_per_second"},
		"rate without end":           {gcpkms.Options{KeyRing: ring, MaxSignaturesPerSecond: math.Inf(1)}, "max_signatures_per_second"},
		"no number":                  {gcpkms.Options{KeyRing: ring, MaxSignaturesPerSecond: math.NaN()}, "max_signatures_per_second"},
		"negative queue":             {gcpkms.Options{KeyRing: ring, MaxWaiting: -1}, "max_waiting"},
	} {
		b, err := gcpkms.New(t.Context(), c.o)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: it quotes a password", name)
		}
		if err == nil {
			_ = b.Close()
		}
	}
}

func TestAllFaultsAreNamedAtOnce(t *testing.T) {
	_, err := gcpkms.New(t.Context(), gcpkms.Options{ProtectionLevel: "x", RequestTimeout: -1})
	for _, want := range []string{"key_ring", "protection_level", "request_timeout"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not name %s", err, want)
		}
	}
}

func TestBudgetIsWhatTheSettingsSay(t *testing.T) {
	b := open(t, gcpkms.Options{KeyRing: ring, MaxSignaturesPerSecond: 12.5, MaxWaiting: 7})
	var budgeted signer.Budgeted = b
	if got := budgeted.Budget(); got.PerSecond != 12.5 || got.Waiting != 7 {
		t.Errorf("%+v", got)
	}
}
