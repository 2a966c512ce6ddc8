package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"

	"github.com/spf13/cobra"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/zonemint/zonemint/integration/controlplane"
)

// cluster is the API of a Kubernetes cluster.
type cluster struct {
	client *http.Client
	base   string
}

// openCluster opens the cluster of a context of the usual kubeconfig.
func openCluster(kubeContext string) (*cluster, error) {
	c, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(
		clientcmd.NewDefaultClientConfigLoadingRules(), &clientcmd.ConfigOverrides{CurrentContext: kubeContext},
	).ClientConfig()
	if err != nil {
		return nil, err
	}
	client, err := rest.HTTPClientFor(c)
	return &cluster{client, c.Host + "/api/v1/namespaces"}, err
}

// contextFlag adds the flag by which a program is told which cluster is meant.
func contextFlag(cmd *cobra.Command, name string) *string {
	return cmd.PersistentFlags().String(name, "", "a context of the kubeconfig")
}

// call makes a request. It returns the status, or fails if it is none of those that
// are expected.
func (c *cluster) call(ctx context.Context, method, path string, body, answer any, expected ...int) (int, error) {
	text, err := json.Marshal(body)
	if err != nil {
		return 0, err
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, bytes.NewReader(text))
	if err != nil {
		return 0, err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := c.client.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	text, err = io.ReadAll(resp.Body)
	if err != nil {
		return 0, err
	}
	for i, status := range expected {
		switch {
		case status != resp.StatusCode:
		case i == 0 && answer != nil:
			return status, json.Unmarshal(text, answer)
		default:
			return status, nil
		}
	}
	return 0, fmt.Errorf("%s %s: status %d: %s", method, path, resp.StatusCode, text)
}

// secret returns a Secret, and whether it is there.
func (c *cluster) secret(ctx context.Context, namespace, name string) (s controlplane.CoreSecret, there bool, err error) {
	status, err := c.call(ctx, http.MethodGet, "/"+namespace+"/secrets/"+name, nil, &s, http.StatusOK, http.StatusNotFound)
	return s, status == http.StatusOK, err
}

// wantNamespace fails if a namespace is not there.
func (c *cluster) wantNamespace(ctx context.Context, name string) error {
	_, err := c.call(ctx, http.MethodGet, "/"+name, nil, nil, http.StatusOK)
	return err
}
