package kubernetes

import (
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/dynamic"
)

// pageSize is how many Secrets are asked for at once. A Secret may be a mebibyte.
const pageSize = 50

// Secret is a Secret of the cluster, as far as this package knows it.
type Secret struct {
	Namespace, Name string
	Type            string // "Opaque" if Create finds it empty; cannot be changed
	ResourceVersion string // which version was read; the cluster sets it
	Labels          map[string]string
	Annotations     map[string]string
	Data            map[string][]byte
}

// Secret reads one. An empty namespace is the client's.
func (c *Client) Secret(ctx context.Context, namespace, name string) (Secret, error) {
	_, s, err := c.read(ctx, "read", Secret{Namespace: cmp.Or(namespace, c.namespace), Name: name})
	return s, err
}

// Secrets reads those that a label selector chooses; all if it is "". An empty
// namespace is the client's. The answer is of one moment.
func (c *Client) Secrets(ctx context.Context, namespace, selector string) ([]Secret, error) {
	at := Secret{Namespace: cmp.Or(namespace, c.namespace), Name: "*"}
	if err := checkName(at.Namespace, "any"); err != nil {
		return nil, fmt.Errorf("list Secrets: %w", err)
	}
	var all []Secret
	next := ""
	for {
		page, err := c.page(ctx, at, metav1.ListOptions{LabelSelector: selector, Limit: pageSize, Continue: next})
		if err != nil {
			return nil, failed(ctx, "list", at, err)
		}
		for i := range page.Items {
			s, err := decode(&page.Items[i])
			if err != nil {
				return nil, fmt.Errorf("list Secret %s/%s: %w", at.Namespace, page.Items[i].GetName(), err)
			}
			all = append(all, s)
		}
		if next = page.GetContinue(); next == "" {
			return all, nil
		}
	}
}

// page reads the next Secrets of a list.
func (c *Client) page(ctx context.Context, at Secret, o metav1.ListOptions) (*unstructured.UnstructuredList, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	return c.in(at).List(ctx, o)
}

// Create makes a new one, and returns what the cluster made of it. An empty namespace
// is the client's. The error matches ErrExists if there is one of that name.
func (c *Client) Create(ctx context.Context, s Secret) (Secret, error) {
	s.Namespace, s.Type, s.ResourceVersion = cmp.Or(s.Namespace, c.namespace), cmp.Or(s.Type, "Opaque"), ""
	if err := checkName(s.Namespace, s.Name); err != nil {
		return Secret{}, fmt.Errorf("create Secret: %w", err)
	}
	u := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "Secret", "type": s.Type}}
	u.SetNamespace(s.Namespace)
	u.SetName(s.Name)
	s.encode(u)
	call, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	made, err := c.in(s).Create(call, u, metav1.CreateOptions{})
	if err != nil {
		return Secret{}, failed(ctx, "create", s, err)
	}
	return decode(made)
}

// Update replaces labels, annotations and data with those of s, if the cluster still
// has the version that s was read as, and returns the new version. Everything else
// about it stays as it is. The error matches ErrConflict if somebody changed it, and
// ErrNotFound if somebody deleted it; nothing was written then.
func (c *Client) Update(ctx context.Context, s Secret) (Secret, error) {
	s.Namespace = cmp.Or(s.Namespace, c.namespace)
	if s.ResourceVersion == "" {
		return Secret{}, fmt.Errorf("update Secret %s/%s: %w", s.Namespace, s.Name, errUnread)
	}
	// What is not known here is taken from the very version that is replaced.
	u, was, err := c.read(ctx, "update", s)
	if err != nil {
		return Secret{}, err
	}
	if was.ResourceVersion != s.ResourceVersion {
		return Secret{}, fmt.Errorf("update Secret %s/%s: %w", s.Namespace, s.Name, ErrConflict)
	}
	s.encode(u)
	call, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	made, err := c.in(s).Update(call, u, metav1.UpdateOptions{})
	if err != nil {
		return Secret{}, failed(ctx, "update", s, err)
	}
	return decode(made)
}

// Delete deletes it, if the cluster still has the version that s was read as.
// The error matches ErrConflict if somebody changed it, and ErrNotFound if somebody
// deleted it.
func (c *Client) Delete(ctx context.Context, s Secret) error {
	s.Namespace = cmp.Or(s.Namespace, c.namespace)
	if s.ResourceVersion == "" {
		return fmt.Errorf("delete Secret %s/%s: %w", s.Namespace, s.Name, errUnread)
	}
	if err := checkName(s.Namespace, s.Name); err != nil {
		return fmt.Errorf("delete Secret: %w", err)
	}
	call, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	err := c.in(s).Delete(call, s.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{ResourceVersion: &s.ResourceVersion}})
	if err != nil {
		return failed(ctx, "delete", s, err)
	}
	return nil
}

// errUnread is about writing what nobody looked at.
var errUnread = errors.New("its version is not known, so it has to be read first")

func (c *Client) in(s Secret) dynamic.ResourceInterface { return c.api.Namespace(s.Namespace) }

// read returns the whole Secret, and what is known of it.
func (c *Client) read(ctx context.Context, act string, s Secret) (*unstructured.Unstructured, Secret, error) {
	if err := checkName(s.Namespace, s.Name); err != nil {
		return nil, Secret{}, fmt.Errorf("%s Secret: %w", act, err)
	}
	call, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	u, err := c.in(s).Get(call, s.Name, metav1.GetOptions{})
	if err != nil {
		return nil, Secret{}, failed(ctx, act, s, err)
	}
	was, err := decode(u)
	if err != nil {
		return nil, Secret{}, fmt.Errorf("%s Secret %s/%s: %w", act, s.Namespace, s.Name, err)
	}
	return u, was, nil
}

// encode writes into u what may be changed.
func (s Secret) encode(u *unstructured.Unstructured) {
	u.SetLabels(s.Labels)
	u.SetAnnotations(s.Annotations)
	data := make(map[string]any, len(s.Data))
	for k, v := range s.Data {
		data[k] = base64.StdEncoding.EncodeToString(v)
	}
	u.Object["data"] = data
}

func decode(u *unstructured.Unstructured) (Secret, error) {
	var body struct {
		Type string            `json:"type"`
		Data map[string][]byte `json:"data"`
	}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, &body); err != nil {
		return Secret{}, errors.New("the cluster's answer is not a Secret") // the cause may quote data
	}
	return Secret{
		Namespace: u.GetNamespace(), Name: u.GetName(), Type: body.Type, ResourceVersion: u.GetResourceVersion(),
		Labels: u.GetLabels(), Annotations: u.GetAnnotations(), Data: body.Data,
	}, nil
}
