// Package kubernetes reads and writes the Secrets of a cluster, and nothing else.
package kubernetes

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// requestTimeout bounds a request, with the attempts that a busy server asks for.
const requestTimeout = 10 * time.Second

// namespaceFile is where a pod finds the namespace of its service account.
const namespaceFile = "/var/run/secrets/kubernetes.io/serviceaccount/namespace"

// Config says which cluster, and as whom. If it is empty that is the service
// account of the pod if there is one, and otherwise the current context of the usual
// kubeconfig: $KUBECONFIG or ~/.kube/config.
type Config struct {
	Kubeconfig string // a file
	Context    string // a context of the kubeconfig instead of the current one
}

// Client is a cluster's API. It is safe for concurrent use. Each request is given
// up after 10 seconds. Credentials in files are read again when they change.
type Client struct {
	api       dynamic.NamespaceableResourceInterface
	namespace string
}

// New returns a client. It reads the configuration and makes no request.
func New(c Config) (*Client, error) {
	cluster, namespace, err := c.load()
	if err != nil {
		return nil, fmt.Errorf("kubernetes: %w", err)
	}
	cluster.UserAgent = "zonemint"
	cluster.WarningHandler = rest.NoWarnings{} // they are about deprecated APIs
	cluster.QPS = -1                           // the server has limits of its own, and says so
	client, err := rest.HTTPClientFor(cluster)
	if err != nil {
		return nil, fmt.Errorf("kubernetes: %w", err)
	}
	// Credentials are for the server that was named, and for nobody whom an
	// answer names.
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	d, err := dynamic.NewForConfigAndClient(cluster, client)
	if err != nil {
		return nil, fmt.Errorf("kubernetes: %w", err)
	}
	return &Client{d.Resource(schema.GroupVersionResource{Version: "v1", Resource: "secrets"}), namespace}, nil
}

// Namespace returns the namespace of the context or of the service account. It is
// meant where a call names none.
func (c *Client) Namespace() string { return c.namespace }

func (c Config) load() (*rest.Config, string, error) {
	if c == (Config{}) {
		cluster, err := rest.InClusterConfig()
		if err == nil {
			return cluster, podNamespace(), nil
		}
		if !errors.Is(err, rest.ErrNotInCluster) && !errors.Is(err, fs.ErrNotExist) { // a pod may have no service account
			return nil, "", err
		}
	}
	return c.loadFile()
}

func (c Config) loadFile() (*rest.Config, string, error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = c.Kubeconfig
	raw, err := rules.Load()
	if err != nil {
		return nil, "", fmt.Errorf("kubeconfig: %w", err)
	}
	if clientcmd.IsConfigurationInvalid(clientcmd.Validate(*raw)) && len(raw.Contexts) == 0 {
		return nil, "", errors.New("no cluster is known: there is no service account of a pod, and no context in a kubeconfig")
	}
	loaded := clientcmd.NewNonInteractiveClientConfig(*raw, c.Context, &clientcmd.ConfigOverrides{}, rules)
	cluster, err := loaded.ClientConfig()
	if err != nil {
		return nil, "", fmt.Errorf("kubeconfig: %w", err)
	}
	namespace, _, err := loaded.Namespace()
	if err != nil {
		return nil, "", fmt.Errorf("kubeconfig: %w", err)
	}
	return cluster, namespace, nil
}

func podNamespace() string {
	b, err := os.ReadFile(namespaceFile)
	if err != nil {
		return "default" // as without a service account
	}
	return cmp.Or(strings.TrimSpace(string(b)), "default")
}
