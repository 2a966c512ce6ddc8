package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/zonemint/zonemint/kubernetes"
)

// By these labels an agent knows its own Secrets.
const (
	managedBy      = "app.kubernetes.io/managed-by"
	managedByUs    = "zonemint"
	component      = "app.kubernetes.io/component"
	componentAgent = "agent"
)

// annotationPrefix begins the names of what a Secret says of the token in it.
const annotationPrefix = "zonemint/"

// Secrets are the Secrets of a cluster; [kubernetes.Client] has them.
type Secrets interface {
	Secret(ctx context.Context, namespace, name string) (kubernetes.Secret, error)
	Create(ctx context.Context, s kubernetes.Secret) (kubernetes.Secret, error)
	Update(ctx context.Context, s kubernetes.Secret) (kubernetes.Secret, error)
}

// Secret is a [Sink]: a key of a Secret of Kubernetes. Other keys of it are left
// alone. Writing is compare and swap: if two agents keep one Secret, one of them has a
// conflict and reads again.
type Secret struct {
	Secrets         Secrets
	Namespace, Name string
	Key             string // usually "token"

	// Adopt has the agent write into a Secret that is there and not its own. It is
	// its own from then on.
	Adopt bool
}

// Read implements [Sink].
func (s *Secret) Read(ctx context.Context) (string, error) {
	found, err := s.Secrets.Secret(ctx, s.Namespace, s.Name)
	if errors.Is(err, kubernetes.ErrNotFound) {
		return "", nil
	}
	if err == nil {
		err = s.check(found)
	}
	return string(found.Data[s.Key]), err
}

// check refuses a Secret that an agent did not make.
func (s *Secret) check(found kubernetes.Secret) error {
	if s.Adopt || found.Labels[managedBy] == managedByUs && found.Labels[component] == componentAgent {
		return nil
	}
	return fmt.Errorf("Secret %s/%s was not made by an agent: %w; name another one, or adopt this one with --adopt", s.Namespace, s.Name, ErrForeign)
}

// Write implements [Sink].
func (s *Secret) Write(ctx context.Context, t Token) error {
	found, err := s.Secrets.Secret(ctx, s.Namespace, s.Name)
	switch {
	case errors.Is(err, kubernetes.ErrNotFound):
		_, err = s.Secrets.Create(ctx, s.with(kubernetes.Secret{Namespace: s.Namespace, Name: s.Name, Type: "Opaque"}, t))
		return err
	case err != nil:
		return err
	}
	if err := s.check(found); err != nil {
		return err
	}
	_, err = s.Secrets.Update(ctx, s.with(found, t))
	return err
}

// with returns the Secret with a token in it.
func (s *Secret) with(found kubernetes.Secret, t Token) kubernetes.Secret {
	found.Labels = merged(found.Labels, map[string]string{managedBy: managedByUs, component: componentAgent})
	found.Annotations = merged(found.Annotations, map[string]string{
		annotationPrefix + "jti":        t.ID,
		annotationPrefix + "kid":        t.KeyID,
		annotationPrefix + "expires-at": t.ExpiresAt.UTC().Format(time.RFC3339),
	})
	found.Data = merged(found.Data, map[string][]byte{s.Key: []byte(t.Raw)})
	return found
}

// Remove implements [Sink]. The Secret stays, without the key.
func (s *Secret) Remove(ctx context.Context) error {
	found, err := s.Secrets.Secret(ctx, s.Namespace, s.Name)
	if errors.Is(err, kubernetes.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := s.check(found); err != nil {
		return err
	}
	if _, ok := found.Data[s.Key]; !ok {
		return nil
	}
	found.Data, found.Annotations = merged(found.Data, nil), merged(found.Annotations, nil)
	delete(found.Data, s.Key)
	for _, name := range []string{"jti", "kid", "expires-at"} {
		delete(found.Annotations, annotationPrefix+name)
	}
	_, err = s.Secrets.Update(ctx, found)
	return err
}

// merged returns a map with what both have; more wins.
func merged[V any](had, more map[string]V) map[string]V {
	all := make(map[string]V, len(had)+len(more))
	maps.Copy(all, had)
	maps.Copy(all, more)
	return all
}
