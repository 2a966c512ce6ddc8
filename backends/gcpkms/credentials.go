package gcpkms

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/user"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"cloud.google.com/go/auth"
	"cloud.google.com/go/auth/credentials"
	"cloud.google.com/go/compute/metadata"
	kms "cloud.google.com/go/kms/apiv1"

	"github.com/zonemint/zonemint/signer"
)

// findCredential says where tokens come from: the file of the setting, or as in
// "How Application Default Credentials works" the file of an environment variable, that
// of gcloud, or the metadata server. The SDK would do the last three as well, but it asks for
// the metadata server once in the life of a process.
func (o Options) findCredential(ctx context.Context) (*source, error) {
	file := newSource(http.ProxyFromEnvironment)
	file.get = func(ctx context.Context, c *http.Client) (*auth.Token, error) {
		found, err := o.readCredential(c)
		if err != nil {
			return nil, err
		}
		return found.Token(ctx)
	}
	found, err := o.readCredential(&http.Client{Transport: file.transport})
	switch {
	case err == nil:
		file.found = found
		return file, nil
	case o.CredentialsFile != "":
		return nil, fail(signer.Misconfigured, "the setting credentials_file: %w", err)
	case !errors.Is(err, errNoFile):
		return nil, fail(signer.Misconfigured, "find a credential for cloud kms: %s: set up Application Default Credentials, "+
			"or name a file in the setting credentials_file", words(err.Error()))
	}
	server := newSource(nil)
	server.get = askMetadata
	c := metadata.NewWithOptions(&metadata.Options{Client: &http.Client{Transport: server.transport}})
	if !c.OnGCEWithContext(ctx) {
		server.transport.CloseIdleConnections()
		return nil, fail(signer.Unavailable, "find a credential for cloud kms: there is no file with one, and no metadata server answers: "+
			"outside of Google Cloud set up Application Default Credentials, or name a file in the setting credentials_file")
	}
	return server, nil
}

// newSource makes a source without anything to ask yet. Metadata servers are not
// behind a proxy.
func newSource(proxy func(*http.Request) (*url.URL, error)) *source {
	return &source{transport: &http.Transport{
		Proxy: proxy, DialContext: (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
		ForceAttemptHTTP2: true, TLSHandshakeTimeout: 5 * time.Second, IdleConnTimeout: time.Minute,
	}}
}

// errNoFile means that nobody has named a file, and gcloud has left none.
var errNoFile = errors.New("there is no file with a credential")

// readCredential reads a file as it is now, for each token: one that comes later or is
// replaced is taken.
func (o Options) readCredential(c *http.Client) (*auth.Credentials, error) {
	name := o.CredentialsFile
	if name == "" {
		name = os.Getenv("GOOGLE_APPLICATION_CREDENTIALS")
	}
	named := name != ""
	if !named {
		name = gcloudFile()
	}
	text, err := os.ReadFile(name) //nolint:gosec // the operator names it
	switch {
	case err != nil && !named:
		return nil, errNoFile
	case err != nil:
		return nil, err
	}
	var said struct {
		Type   credentials.CredType `json:"type"`
		Source struct {
			Certificate json.RawMessage `json:"certificate"`
		} `json:"credential_source"`
	}
	if json.Unmarshal(text, &said) != nil {
		return nil, errors.New("it is not JSON")
	}
	if o.CredentialsFile != "" && !slices.Contains([]credentials.CredType{
		credentials.ServiceAccount, credentials.AuthorizedUser, credentials.ImpersonatedServiceAccount, credentials.ExternalAccount,
	}, said.Type) {
		return nil, fmt.Errorf("it is of the type %.40q, which is none of service_account, authorized_user, impersonated_service_account and external_account", said.Type)
	}
	opts := &credentials.DetectOptions{
		Scopes: kms.DefaultAuthScopes(), UseSelfSignedJWT: true, Client: c, Logger: slog.New(slog.DiscardHandler),
	}
	if said.Source.Certificate != nil {
		opts.Client = nil // it brings one of its own, with that certificate
	}
	return credentials.NewCredentialsFromJSON(said.Type, text, opts)
}

// gcloudFile is where "gcloud auth application-default login" leaves a credential.
func gcloudFile() string {
	const name = "application_default_credentials.json"
	if runtime.GOOS == "windows" {
		return filepath.Join(os.Getenv("APPDATA"), "gcloud", name)
	}
	home, err := os.UserHomeDir()
	if err != nil {
		if u, err := user.Current(); err == nil {
			home = u.HomeDir
		}
	}
	return filepath.Join(home, ".config", "gcloud", name)
}

// askMetadata gets a token of the service account of this machine ("Authenticate
// workloads to Google Cloud APIs using service accounts").
func askMetadata(ctx context.Context, c *http.Client) (*auth.Token, error) {
	text, err := metadata.NewWithOptions(&metadata.Options{Client: c}).GetWithContext(ctx,
		"instance/service-accounts/default/token?scopes="+url.QueryEscape(strings.Join(kms.DefaultAuthScopes(), ",")))
	if err != nil {
		return nil, err
	}
	var said struct {
		Token     string `json:"access_token"`
		Type      string `json:"token_type"`
		ExpiresIn int    `json:"expires_in"` // seconds
	}
	if err := json.Unmarshal([]byte(text), &said); err != nil || said.ExpiresIn <= 0 {
		return nil, errors.New("the metadata server does not answer with a token")
	}
	return &auth.Token{
		Value: said.Token, Type: said.Type, Expiry: time.Now().Add(time.Duration(said.ExpiresIn) * time.Second),
		Metadata: map[string]any{"auth.google.tokenSource": "compute-metadata"}, // it is for the universe that this machine is in
	}, nil
}
