package kuma

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strings"

	"go.yaml.in/yaml/v3"
)

// MaxSecretFile is how much ReadSecrets reads, in bytes.
const MaxSecretFile = 64 << 20

// secretDocument is a secret in any of the forms that kumactl and kubectl print,
// or a list of such.
type secretDocument struct {
	Items []secretDocument `yaml:"items"`

	Type     string    `yaml:"type"`
	Mesh     string    `yaml:"mesh"`
	Name     string    `yaml:"name"`
	Data     yaml.Node `yaml:"data"` // base64, or a map with the entry "value"
	Metadata struct {
		Name   string            `yaml:"name"`
		Labels map[string]string `yaml:"labels"`
	} `yaml:"metadata"`
}

// ReadSecrets reads secrets as "kumactl get global-secrets -o yaml", "kumactl get
// secrets -o yaml" and "kubectl get secrets -o yaml" print them, in YAML or JSON,
// one document or several. Secrets that are no control plane's are skipped. Errors
// have nothing of the content.
func ReadSecrets(r io.Reader) ([]Secret, error) {
	limited := &io.LimitedReader{R: r, N: MaxSecretFile + 1}
	dec := yaml.NewDecoder(limited)
	var out []Secret
	for n := 1; ; n++ {
		var doc secretDocument
		err := dec.Decode(&doc)
		switch {
		case errors.Is(err, io.EOF):
			return out, nil
		case limited.N == 0:
			return nil, fmt.Errorf("there are more than %d bytes", MaxSecretFile)
		case err != nil:
			// The cause may quote the file.
			return nil, fmt.Errorf("document %d is not what kumactl or kubectl print with -o yaml or -o json", n)
		}
		if out, err = doc.appendTo(out); err != nil {
			return nil, err
		}
	}
}

func (d secretDocument) appendTo(out []Secret) ([]Secret, error) {
	var err error
	for _, item := range d.Items {
		if out, err = item.appendTo(out); err != nil {
			return nil, err
		}
	}
	ref, ok := d.ref()
	if !ok {
		return out, nil
	}
	text, err := d.value()
	if err != nil {
		return nil, fmt.Errorf("%s %w", ref, err)
	}
	data, err := base64.StdEncoding.DecodeString(strings.TrimSpace(text))
	if err != nil {
		return nil, fmt.Errorf("%s is not in base64", ref)
	}
	return append(out, Secret{ref, data}), nil
}

// ref returns which secret of a control plane the document is, if it is one.
func (d secretDocument) ref() (Ref, bool) {
	switch d.Type {
	case "GlobalSecret":
		return Ref{Name: d.Name}, true
	case "Secret":
		return Ref{Mesh: d.Mesh, Name: d.Name}, true
	case globalType:
		return Ref{Name: d.Metadata.Name}, true
	case meshType:
		mesh := d.Metadata.Labels[meshLabel]
		if mesh == "" {
			mesh = "default" // as control planes have it
		}
		return Ref{Mesh: mesh, Name: d.Metadata.Name}, true
	default:
		return Ref{}, false
	}
}

// value returns the content in base64.
func (d secretDocument) value() (string, error) {
	if d.Data.Kind == yaml.ScalarNode {
		return d.Data.Value, nil
	}
	for i := 0; d.Data.Kind == yaml.MappingNode && i+1 < len(d.Data.Content); i += 2 {
		if d.Data.Content[i].Value == "value" && d.Data.Content[i+1].Kind == yaml.ScalarNode {
			return d.Data.Content[i+1].Value, nil
		}
	}
	return "", errors.New("has no data")
}
