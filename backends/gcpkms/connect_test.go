package gcpkms_test

import (
	"context"
	"os"
	"strings"
	"testing"

	"github.com/zonemint/zonemint/backends/gcpkms"
	"github.com/zonemint/zonemint/integration/gcpkmsdouble"
	"github.com/zonemint/zonemint/signer"
)

func find(ctx context.Context, b signer.Backend) error {
	_, err := signer.Find(ctx, b, newSpec(signer.ES256))
	return err
}

// secure are the settings of a backend at a double with TLS, and where the
// credential is.
func secure(t *testing.T, d *gcpkmsdouble.Server) (o gcpkms.Options, credential string) {
	t.Helper()
	text, err := d.Credentials()
	if err != nil {
		t.Fatal(err)
	}
	credential = writeFile(t, text)
	return gcpkms.Options{
		KeyRing: gcpkmsdouble.KeyRing, Endpoint: d.Addr(), CAFile: writeFile(t, d.CA()), CredentialsFile: credential, Logger: quiet(),
	}, credential
}

// A credential that comes later, as one from another process may, is taken then.
func TestACredentialThatComesLater(t *testing.T) {
	d := gcpkmsdouble.Start(t, gcpkmsdouble.Options{TLS: true})
	o, credential := secure(t, d)
	away := credential + ".away"
	if err := os.Rename(credential, away); err != nil {
		t.Fatal(err)
	}
	b := open(t, o)
	if err := find(t.Context(), b); signer.CodeOf(err) != signer.Misconfigured || !strings.Contains(err.Error(), "credentials_file") {
		t.Errorf("without it: %v", err)
	}
	if err := os.Rename(away, credential); err != nil {
		t.Fatal(err)
	}
	if err := find(t.Context(), b); err != nil {
		t.Errorf("with it: %v", err)
	}
}

// The ordinary chain begins with an environment variable.
func TestTheOrdinaryChainOfCredentials(t *testing.T) {
	d := gcpkmsdouble.Start(t, gcpkmsdouble.Options{TLS: true})
	o, credential := secure(t, d)
	o.CredentialsFile = ""
	t.Setenv("GOOGLE_APPLICATION_CREDENTIALS", credential)
	if err := find(t.Context(), open(t, o)); err != nil {
		t.Error(err)
	}
	t.Setenv("GOOGLE_APPLICATION_CREDENTIALS", "/not/there")
	err := find(t.Context(), open(t, o))
	if signer.CodeOf(err) != signer.Misconfigured || !strings.Contains(err.Error(), "Application Default Credentials") {
		t.Error(err)
	}
}

func TestCredentialsThatAreNone(t *testing.T) {
	d := gcpkmsdouble.Start(t, gcpkmsdouble.Options{TLS: true})
	other, err := gcpkmsdouble.Start(t, gcpkmsdouble.Options{TLS: true}).Credentials()
	if err != nil {
		t.Fatal(err)
	}
	own, err := d.Credentials()
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		text string
		want signer.Code
	}{
		"of another account": {string(other), signer.Denied},
		"no JSON":            {"-----BEGIN PRIVATE KEY-----", signer.Misconfigured},
		"of another type":    {`{"type": "aws"}`, signer.Misconfigured},
		"without a key":      {`{"type": "service_account", "private_key": "SECRET"}`, signer.Misconfigured},
		"of a server that is down": {`{"type": "external_account", "audience": "a", "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
			"token_url": "http://127.0.0.1:1/", "client_secret": "SECRET", "credential_source": {"file": "` + writeFile(t, []byte("SECRET")) + `"}}`, signer.Unavailable},
		"of a token that is not there": {`{"type": "external_account", "audience": "a", "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
			"token_url": "http://127.0.0.1:1/", "credential_source": {"file": "/not/there"}}`, signer.Misconfigured},
		"of another universe": {strings.Replace(string(own), "{", `{"universe_domain": "example.com",`, 1), signer.Misconfigured},
	} {
		o, _ := secure(t, d)
		o.CredentialsFile = writeFile(t, []byte(c.text))
		err := find(t.Context(), open(t, o))
		if signer.CodeOf(err) != c.want || strings.Contains(err.Error(), "SECRET") || strings.Contains(err.Error(), "eyJ") {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

// Whom nobody vouches for gets no credential, and a wrong end of the wire is told from
// one that is down.
func TestServersThatAreNotTrusted(t *testing.T) {
	d := gcpkmsdouble.Start(t, gcpkmsdouble.Options{TLS: true})
	o, _ := secure(t, d)
	o.CAFile = writeFile(t, gcpkmsdouble.Start(t, gcpkmsdouble.Options{TLS: true}).CA())
	if err := find(t.Context(), open(t, o)); signer.CodeOf(err) != signer.Misconfigured {
		t.Errorf("another authority: %v", err)
	}
	o.CAFile = ""
	if err := find(t.Context(), open(t, o)); signer.CodeOf(err) != signer.Misconfigured {
		t.Errorf("the system's authorities: %v", err)
	}
	if n := d.Calls(""); n != 0 {
		t.Errorf("%d requests were sent", n)
	}
	o, _ = secure(t, d)
	o.Endpoint = gcpkmsdouble.Start(t, gcpkmsdouble.Options{}).Addr()
	if err := find(t.Context(), open(t, o)); signer.CodeOf(err) != signer.Misconfigured {
		t.Errorf("plain text: %v", err)
	}
}

// nobody is where nobody listens, and nobody is given a port by the system.
const nobody = "127.0.0.1:1"

// A service that is down is no fault of the settings, and is found when it is back.
func TestAServiceThatIsDown(t *testing.T) {
	o := gcpkms.Options{KeyRing: gcpkmsdouble.KeyRing, InsecureEndpoint: nobody, Logger: quiet()}
	if err := find(t.Context(), open(t, o)); signer.CodeOf(err) != signer.Unavailable {
		t.Error(err)
	}
}

// Closing ends what is under way, and says why.
func TestCloseEndsCalls(t *testing.T) {
	d := gcpkmsdouble.Start(t, gcpkmsdouble.Options{})
	b, spec := open(t, settings(d)), newSpec(signer.ES256)
	ref, _ := made(t, b, spec)
	h, err := b.Open(t.Context(), spec, ref)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Stall()()
	before := d.Calls("AsymmetricSign")
	done := make(chan error, 1)
	go func() {
		_, err := h.Sign(t.Context(), spec.Algorithm, make([]byte, 32))
		done <- err
	}()
	await(t, func() bool { return d.Calls("AsymmetricSign") > before })
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	if err := <-done; b.Code(err) != signer.Closed {
		t.Errorf("%v: %q", err, b.Code(err))
	}
	if _, err := signer.Adopt(t.Context(), b, spec, string(ref)); signer.CodeOf(err) != signer.Closed {
		t.Error(err)
	}
	if _, err := signer.Attest(t.Context(), b, spec, ref); signer.CodeOf(err) != signer.Closed {
		t.Error(err)
	}
}
