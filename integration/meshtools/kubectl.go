package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/yaml"

	"github.com/zonemint/zonemint/integration/controlplane"
)

// kubectl is what its flags say.
type kubectl struct {
	context   *string
	namespace string
}

func newKubectl() *cobra.Command {
	k := &kubectl{}
	cmd := group("kubectl",
		group("create", k.newCreateNamespace(), group("secret", k.newCreateSecret())),
		k.newApply(),
	)
	k.context = contextFlag(cmd, "context")
	cmd.PersistentFlags().StringVarP(&k.namespace, "namespace", "n", "", "the namespace")
	return cmd
}

func (k *kubectl) newCreateNamespace() *cobra.Command {
	return &cobra.Command{Use: "namespace NAME", Args: cobra.ExactArgs(1), RunE: func(cmd *cobra.Command, args []string) error {
		if faults := validation.IsDNS1123Label(args[0]); len(faults) > 0 {
			return fmt.Errorf("namespace %q: %s", args[0], strings.Join(faults, ", "))
		}
		c, err := openCluster(*k.context)
		if err != nil {
			return err
		}
		body := map[string]any{"apiVersion": "v1", "kind": "Namespace", "metadata": map[string]any{"name": args[0]}}
		_, err = c.call(cmd.Context(), http.MethodPost, "", body, nil, http.StatusCreated)
		return err
	}}
}

func (k *kubectl) newCreateSecret() *cobra.Command {
	var files []string
	cmd := &cobra.Command{Use: "generic NAME", Args: cobra.ExactArgs(1), RunE: func(cmd *cobra.Command, args []string) error {
		s := controlplane.CoreSecret{
			APIVersion: "v1", Kind: "Secret", Type: "Opaque", Data: map[string][]byte{},
			Metadata: controlplane.Metadata{Namespace: k.namespace, Name: args[0]},
		}
		for _, f := range files {
			key, path, ok := strings.Cut(f, "=")
			if !ok {
				key, path = filepath.Base(f), f
			}
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			s.Data[key] = text
		}
		if err := check(s); err != nil {
			return err
		}
		c, err := openCluster(*k.context)
		if err != nil {
			return err
		}
		_, err = c.call(cmd.Context(), http.MethodPost, "/"+k.namespace+"/secrets", s, nil, http.StatusCreated)
		return err
	}}
	cmd.Flags().StringArrayVar(&files, "from-file", nil, "[key=]file")
	return require(cmd, "from-file")
}

func (k *kubectl) newApply() *cobra.Command {
	var path string
	cmd := &cobra.Command{Use: "apply", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		documents, err := readDocuments(cmd.InOrStdin(), path)
		if err != nil {
			return err
		}
		c, err := openCluster(*k.context)
		if err != nil {
			return err
		}
		for _, d := range documents {
			if err := k.apply(cmd.Context(), c, d); err != nil {
				return err
			}
		}
		return nil
	}}
	cmd.Flags().StringVarP(&path, "filename", "f", "", "a file; - is stdin")
	return require(cmd, "filename")
}

// readDocuments returns the documents of a file in YAML, as JSON.
func readDocuments(stdin io.Reader, path string) ([]json.RawMessage, error) {
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		defer f.Close() //nolint:errcheck // it was read
		stdin = f
	}
	var out []json.RawMessage
	for dec := yaml.NewYAMLToJSONDecoder(stdin); ; {
		var d json.RawMessage
		err := dec.Decode(&d)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		if len(d) > 0 && string(d) != "null" {
			out = append(out, d)
		}
	}
	if len(out) == 0 {
		return nil, errors.New("no objects passed to apply")
	}
	return out, nil
}

// apply makes a Secret, or changes it to what the document says. Labels that the
// document does not name stay, as with the real one.
func (k *kubectl) apply(ctx context.Context, c *cluster, document json.RawMessage) error {
	var s controlplane.CoreSecret
	if err := decodeStrictly(document, &s); err != nil {
		return err
	}
	if s.APIVersion != "v1" || s.Kind != "Secret" {
		return fmt.Errorf("%s %s is not a Secret of v1", s.APIVersion, s.Kind)
	}
	if k.namespace != "" && k.namespace != s.Metadata.Namespace {
		return fmt.Errorf("the namespace from the document, %q, is not that of the flag, %q", s.Metadata.Namespace, k.namespace)
	}
	if err := check(s); err != nil {
		return err
	}
	path := "/" + s.Metadata.Namespace + "/secrets"
	now, there, err := c.secret(ctx, s.Metadata.Namespace, s.Metadata.Name)
	switch {
	case err != nil:
		return err
	case !there:
		_, err = c.call(ctx, http.MethodPost, path, s, nil, http.StatusCreated)
		return err
	}
	labels := map[string]string{}
	maps.Copy(labels, now.Metadata.Labels)
	maps.Copy(labels, s.Metadata.Labels)
	s.Metadata.Labels, s.Metadata.ResourceVersion = labels, now.Metadata.ResourceVersion
	_, err = c.call(ctx, http.MethodPut, path+"/"+s.Metadata.Name, s, nil, http.StatusOK)
	return err
}

// decodeStrictly refuses what the type does not have.
func decodeStrictly(document json.RawMessage, into any) error {
	dec := json.NewDecoder(bytes.NewReader(document))
	dec.DisallowUnknownFields()
	return dec.Decode(into)
}

// check refuses what a cluster refuses.
func check(s controlplane.CoreSecret) error {
	faults := append(validation.IsDNS1123Subdomain(s.Metadata.Name), validation.IsDNS1123Label(s.Metadata.Namespace)...)
	size := 0
	for key, value := range s.Data {
		faults = append(faults, validation.IsConfigMapKey(key)...)
		size += len(value)
	}
	for key, value := range s.Metadata.Labels {
		faults = append(append(faults, validation.IsQualifiedName(key)...), validation.IsValidLabelValue(value)...)
	}
	if size > 1<<20 {
		faults = append(faults, "it is larger than 1 MiB")
	}
	if len(faults) > 0 {
		return fmt.Errorf("Secret %s/%s is invalid: %s", s.Metadata.Namespace, s.Metadata.Name, strings.Join(faults, ", "))
	}
	return nil
}
