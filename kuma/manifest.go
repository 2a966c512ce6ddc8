package kuma

import (
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/zonemint/zonemint/token"
)

// The types of secrets on Kubernetes, and the label with the mesh.
const (
	globalType = "system.kuma.io/global-secret"
	meshType   = "system.kuma.io/secret"
	meshLabel  = "kuma.io/mesh"
)

// ErrNothing is about exports that come out empty.
var ErrNothing = errors.New("there is nothing to export")

// SecretOptions say which secrets are wanted.
type SecretOptions struct {
	Keys, Revocations bool
}

// Secret is a secret of a control plane with its content.
type Secret struct {
	Ref

	Data []byte
}

type (
	kubernetesSecret struct {
		APIVersion string             `json:"apiVersion" yaml:"apiVersion"`
		Kind       string             `json:"kind" yaml:"kind"`
		Metadata   kubernetesMetadata `json:"metadata" yaml:"metadata"`
		Type       string             `json:"type" yaml:"type"`
		Data       kubernetesData     `json:"data" yaml:"data"`
	}
	kubernetesMetadata struct {
		Name      string            `json:"name" yaml:"name"`
		Namespace string            `json:"namespace" yaml:"namespace"`
		Labels    map[string]string `json:"labels,omitempty" yaml:"labels,omitempty"`
	}
	kubernetesData struct {
		Value string `json:"value" yaml:"value"` // in base64
	}
	kubernetesList struct {
		APIVersion string `json:"apiVersion" yaml:"apiVersion"`
		Kind       string `json:"kind" yaml:"kind"`
		Items      []any  `json:"items" yaml:"items"`
	}
	universalSecret struct {
		Type string `json:"type" yaml:"type"`
		Mesh string `json:"mesh,omitempty" yaml:"mesh,omitempty"`
		Name string `json:"name" yaml:"name"`
		Data string `json:"data" yaml:"data"` // in base64
	}
	universalList struct {
		Items []any `json:"items" yaml:"items"`
	}
)

// Kubernetes returns keys and revocations as core Secrets in the namespace of the
// control plane.
func (t Trust) Kubernetes(namespace string, o SecretOptions) (Document, error) {
	doc, secrets, err := t.secrets(o)
	if err != nil {
		return Document{}, err
	}
	for _, s := range secrets {
		// A mesh has no namespace of its own, so the list of a mesh would have the
		// name of the global one, which is the one that control planes read.
		if s.Mesh != "" && slices.ContainsFunc(secrets, func(o Secret) bool { return o.Ref == Ref{Name: s.Name} }) {
			continue
		}
		manifest := kubernetesSecret{
			APIVersion: "v1", Kind: "Secret", Type: globalType,
			Metadata: kubernetesMetadata{Name: s.Name, Namespace: namespace},
			Data:     kubernetesData{base64.StdEncoding.EncodeToString(s.Data)},
		}
		if s.Mesh != "" {
			manifest.Type, manifest.Metadata.Labels = meshType, map[string]string{meshLabel: s.Mesh}
		}
		doc.items = append(doc.items, manifest)
	}
	doc.Comments = append(doc.Comments, "For kubectl apply -f -, where the global control plane is.")
	doc.list = func(items []any) any { return kubernetesList{"v1", "List", items} }
	return doc, nil
}

// Universal returns keys and revocations as resources of a control plane that is
// not on Kubernetes.
func (t Trust) Universal(o SecretOptions) (Document, error) {
	doc, secrets, err := t.secrets(o)
	if err != nil {
		return Document{}, err
	}
	for _, s := range secrets {
		kind := "GlobalSecret"
		if s.Mesh != "" {
			kind = "Secret"
		}
		doc.items = append(doc.items, universalSecret{kind, s.Mesh, s.Name, base64.StdEncoding.EncodeToString(s.Data)})
	}
	doc.Comments = append(doc.Comments, "For kumactl apply -f -, to the global control plane.")
	doc.list = func(items []any) any { return universalList{items} }
	return doc, nil
}

// secrets returns all secrets, keys first, or none.
func (t Trust) secrets(o SecretOptions) (Document, []Secret, error) {
	s := &selection{}
	var out []Secret
	var listed []Keyset
	if o.Keys {
		s = t.choose(t.zoneKeysets(), func(s *selection, ks Keyset, k Key) bool {
			s.note("key %q of keyset %q is left out: it is a control plane's own, which has it in its secrets", k.ID, ks.Name)
			return false
		})
		t.noteUnfit(s)
		out = s.keySecrets()
	}
	keys := len(out)
	if o.Revocations {
		var lists []Secret
		lists, listed = t.listSecrets(s)
		out = append(out, lists...)
	}
	if err := s.err(); err != nil {
		return Document{}, nil, err
	}
	if len(out) == 0 {
		return Document{Notes: s.notes}, nil, fmt.Errorf("%w%s", ErrNothing, because(s.notes))
	}
	doc := Document{Comments: t.header(s.keys, listed), Notes: s.notes, Keys: keys, Lists: len(listed)}
	if len(listed) > 0 {
		doc.Comments = append(doc.Comments,
			"A list takes the place of the one that is there: \"zonemint kuma import\" takes over",
			"what a control plane has revoked before.")
	}
	return doc, out, nil
}

// because lists notes behind an error.
func because(notes []string) string {
	if len(notes) == 0 {
		return ""
	}
	return ":\n- " + strings.Join(notes, "\n- ")
}

// zoneKeysets returns the keysets whose keys can be secrets. Those of other
// profiles must hold private keys.
func (t Trust) zoneKeysets() []Keyset {
	return slices.DeleteFunc(slices.Clone(t.Keysets), func(ks Keyset) bool { return ks.Profile != token.ProfileZone })
}

func (t Trust) noteUnfit(s *selection) {
	for _, ks := range t.Keysets {
		if ks.Profile != token.ProfileZone {
			s.note("the keys of keyset %q are left out: control planes take keys for %s tokens from their configuration only, see --format config", ks.Name, ks.Profile)
		}
	}
}

func (s *selection) keySecrets() []Secret {
	var out []Secret
	for _, k := range s.keys {
		ref, err := PublicKeySecret(k.ID)
		if err != nil {
			s.fault("keyset %q: %v. --format config takes any", k.keyset.Name, err)
			continue
		}
		out = append(out, Secret{ref, []byte(k.PEM)})
	}
	return out
}

// listSecrets returns the lists of revoked tokens. Keysets for the same tokens
// share one.
func (t Trust) listSecrets(s *selection) ([]Secret, []Keyset) {
	var out []Secret
	var listed []Keyset
	done := map[string]bool{}
	for _, ks := range t.Keysets {
		if done[ks.place()] {
			continue
		}
		done[ks.place()] = true
		refs, err := RevocationSecrets(ks.Profile, ks.Mesh)
		if err != nil {
			s.fault("keyset %q: %v", ks.Name, err)
			continue
		}
		var ids List
		var from []Keyset
		for _, other := range t.Keysets {
			if other.place() == ks.place() {
				ids, from = append(ids, other.Revoked...), append(from, other)
			}
		}
		text, err := unique(ids).Encode()
		switch {
		case err != nil:
			s.fault("keyset %q: %v", ks.Name, err)
		case text == "":
			s.note("no token of keyset %q is revoked, and control planes refuse an empty list: delete %s, if there is one", ks.Name, refs[0])
		default:
			listed = append(listed, from...)
			for _, ref := range refs {
				out = append(out, Secret{ref, []byte(text)})
			}
		}
	}
	return out, listed
}

func unique(ids List) List {
	seen := map[string]bool{}
	return slices.DeleteFunc(slices.Clone(ids), func(id string) bool {
		had := seen[id]
		seen[id] = true
		return had
	})
}
