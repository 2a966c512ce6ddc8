package controlplane

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"

	"github.com/zonemint/zonemint/kubernetes"
	"github.com/zonemint/zonemint/kuma"
)

// The types of core Secrets in which a control plane on Kubernetes keeps its own
// secrets, the label that says for which mesh, and where in them the data is.
const (
	globalType = "system.kuma.io/global-secret"
	meshType   = "system.kuma.io/secret"
	meshLabel  = "kuma.io/mesh"
	dataKey    = "value"
)

// SecretsAPI is what a [Kubernetes] needs of a cluster. *kubernetes.Client is one.
type SecretsAPI interface {
	Secret(ctx context.Context, namespace, name string) (kubernetes.Secret, error)
	Secrets(ctx context.Context, namespace, selector string) ([]kubernetes.Secret, error)
	Create(ctx context.Context, s kubernetes.Secret) (kubernetes.Secret, error)
	Update(ctx context.Context, s kubernetes.Secret) (kubernetes.Secret, error)
	Delete(ctx context.Context, s kubernetes.Secret) error
}

// Kubernetes is a global control plane by its core Secrets. Writes compare and
// swap, so that nobody's change is lost. It is safe for concurrent use.
//
// A GlobalSecret and a Secret of a mesh with the same name are one core Secret here,
// whose type cannot change. So only one of them can exist, and reading the other
// one fails with [ErrTaken].
type Kubernetes struct {
	client    SecretsAPI
	namespace string
}

// NewKubernetes returns the control plane whose secrets are in the namespace.
func NewKubernetes(client SecretsAPI, namespace string) *Kubernetes {
	return &Kubernetes{client, namespace}
}

// Get returns a secret. Its errors match those of this package.
func (k *Kubernetes) Get(ctx context.Context, ref kuma.Ref) (Secret, error) {
	s, err := k.get(ctx, ref)
	if err != nil {
		return Secret{}, fmt.Errorf("read %s: %w", ref, err)
	}
	return fromCore(ref, s), nil
}

func (k *Kubernetes) get(ctx context.Context, ref kuma.Ref) (kubernetes.Secret, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	s, err := k.client.Secret(ctx, k.namespace, ref.Name)
	if err != nil {
		return kubernetes.Secret{}, translated(err)
	}
	if !isA(ref, s) {
		return kubernetes.Secret{}, fmt.Errorf("%w: the Secret %s/%s is of type %s", ErrTaken, k.namespace, ref.Name, s.Type)
	}
	return s, nil
}

// List returns the secrets of a mesh, or the GlobalSecrets if it is empty, whose names
// begin with the prefix and that are marked as zonemint's. The others are not even
// asked for: private keys are among them.
func (k *Kubernetes) List(ctx context.Context, mesh, prefix string) ([]Secret, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	all, err := k.client.Secrets(ctx, k.namespace, OwnerLabel+"="+Owner)
	if err != nil {
		return nil, fmt.Errorf("list the Secrets of namespace %s: %w", k.namespace, translated(err))
	}
	var out []Secret
	for _, s := range all {
		ref := kuma.Ref{Mesh: mesh, Name: s.Name}
		if isA(ref, s) && strings.HasPrefix(s.Name, prefix) {
			out = append(out, fromCore(ref, s))
		}
	}
	return out, nil
}

// Put makes a secret, or replaces the very version that was read, if [Check] lets it.
func (k *Kubernetes) Put(ctx context.Context, s Secret) error {
	if err := Check(s); err != nil {
		return err
	}
	if err := k.put(ctx, s); err != nil {
		return fmt.Errorf("write %s: %w", s.Ref, err)
	}
	return nil
}

func (k *Kubernetes) put(ctx context.Context, s Secret) error {
	if s.Version == "" {
		ctx, cancel := context.WithTimeout(ctx, callTimeout)
		defer cancel()
		_, err := k.client.Create(ctx, k.intoCore(kubernetes.Secret{}, s))
		return translated(err)
	}
	// What else the Secret has stays. It is read anew for that; if it is not the
	// version that the caller has seen, the caller has to look again.
	now, err := k.get(ctx, s.Ref)
	if err != nil {
		return err
	}
	if now.ResourceVersion != s.Version {
		return ErrConflict
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	_, err = k.client.Update(ctx, k.intoCore(now, s))
	return translated(err)
}

// intoCore returns the core Secret with what s says.
func (k *Kubernetes) intoCore(core kubernetes.Secret, s Secret) kubernetes.Secret {
	core.Namespace, core.Name, core.Type = k.namespace, s.Ref.Name, typeOf(s.Ref)
	core.Labels = merged(s.Labels, nil)
	if s.Ref.Mesh != "" {
		core.Labels[meshLabel] = s.Ref.Mesh
	}
	core.Data = merged(core.Data, map[string][]byte{dataKey: s.Data})
	return core
}

// merged returns both in a new map; b goes before a.
func merged[V any](a, b map[string]V) map[string]V {
	out := map[string]V{}
	maps.Copy(out, a)
	maps.Copy(out, b)
	return out
}

// Delete deletes the very version of a secret that was read, if [CheckName] lets it.
// One that is not there is not an error.
func (k *Kubernetes) Delete(ctx context.Context, s Secret) error {
	if err := CheckName(s.Ref); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	now, err := k.get(ctx, s.Ref)
	if err == nil && now.ResourceVersion != s.Version {
		err = ErrConflict
	}
	if err == nil {
		err = translated(k.client.Delete(ctx, now))
	}
	if err != nil && !errors.Is(err, ErrNotFound) {
		return fmt.Errorf("delete %s: %w", s.Ref, err)
	}
	return nil
}

func typeOf(r kuma.Ref) string {
	if r.Mesh == "" {
		return globalType
	}
	return meshType
}

// isA says whether a core Secret of that name is that secret.
func isA(ref kuma.Ref, s kubernetes.Secret) bool {
	return s.Type == typeOf(ref) && (ref.Mesh == "" || s.Labels[meshLabel] == ref.Mesh)
}

func fromCore(ref kuma.Ref, s kubernetes.Secret) Secret {
	return Secret{Ref: ref, Labels: s.Labels, Data: s.Data[dataKey], Version: s.ResourceVersion}
}

// translated gives an error of the cluster the meaning it has here.
func translated(err error) error {
	for from, to := range map[error]error{
		kubernetes.ErrNotFound: ErrNotFound, kubernetes.ErrConflict: ErrConflict, kubernetes.ErrExists: ErrConflict,
		kubernetes.ErrDenied: ErrDenied, kubernetes.ErrUnavailable: ErrUnavailable,
	} {
		if errors.Is(err, from) {
			return fmt.Errorf("%w: %w", to, err)
		}
	}
	return err
}
