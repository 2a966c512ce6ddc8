package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"
)

// values are those of the chart that the pages use. The chart of Kong Mesh has that of
// Kuma as a part, under the name kuma.
type values struct {
	Kuma struct {
		ControlPlane chartPlane `yaml:"controlPlane"`
	} `yaml:"kuma"`
}

type chartPlane struct {
	Mode             string            `yaml:"mode"`
	Zone             string            `yaml:"zone"`
	KDSGlobalAddress string            `yaml:"kdsGlobalAddress"`
	EnvVars          map[string]string `yaml:"envVars"`
	Secrets          yaml.Node         `yaml:"secrets"` // a list or a map: the chart only walks through it
	Config           string            `yaml:"config"`  // YAML
}

// secretVariable is a variable whose value is in a Secret.
type secretVariable struct {
	Env    string `yaml:"Env"`
	Secret string `yaml:"Secret"`
	Key    string `yaml:"Key"`
}

func newHelm() *cobra.Command {
	var files []string
	var namespace string
	var install bool
	upgrade := &cobra.Command{Use: "upgrade RELEASE CHART", Args: cobra.ExactArgs(2)}
	kubeContext := contextFlag(upgrade, "kube-context")
	f := upgrade.Flags()
	f.StringArrayVarP(&files, "values", "f", nil, "a file with values")
	f.StringVarP(&namespace, "namespace", "n", "default", "the namespace")
	f.BoolVarP(&install, "install", "i", false, "install it if it is not there")
	upgrade.RunE = func(cmd *cobra.Command, args []string) error {
		if args[1] != "kong-mesh/kong-mesh" || !install {
			return fmt.Errorf("%s has no deployed releases, or is another chart", args[0])
		}
		c, err := openCluster(*kubeContext)
		if err != nil {
			return err
		}
		if err := c.wantNamespace(cmd.Context(), namespace); err != nil {
			return err
		}
		v, err := readValues(files)
		if err != nil {
			return err
		}
		p, err := v.Kuma.ControlPlane.plane(cmd.Context(), c, namespace)
		if err != nil {
			return err
		}
		return p.start()
	}
	return group("helm", require(upgrade, "values"))
}

// readValues reads files with values, of which later ones win.
func readValues(files []string) (*values, error) {
	merged := map[string]any{}
	for _, path := range files {
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		var v map[string]any
		if err := yaml.Unmarshal(text, &v); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		merge(merged, v)
	}
	text, err := yaml.Marshal(merged)
	if err != nil {
		return nil, err
	}
	dec := yaml.NewDecoder(bytes.NewReader(text))
	dec.KnownFields(true)
	out := &values{}
	return out, dec.Decode(out)
}

// merge puts values over others: maps are merged, everything else is replaced.
func merge(into, over map[string]any) {
	for name, value := range over {
		above, isMap := value.(map[string]any)
		below, wasMap := into[name].(map[string]any)
		if isMap && wasMap {
			merge(below, above)
		} else {
			into[name] = value
		}
	}
}

// plane returns the control plane that the chart makes of its values.
func (p chartPlane) plane(ctx context.Context, c *cluster, namespace string) (plane, error) {
	if p.Mode != "zone" && (p.Zone != "" || p.KDSGlobalAddress != "") {
		return plane{}, errors.New("can't specify controlPlane.zone and controlPlane.kdsGlobalAddress when controlPlane.mode!='zone'")
	}
	env := map[string]string{modeVariable: p.Mode}
	if p.Mode == "zone" {
		env[zoneVariable], env[globalVariable] = p.Zone, p.KDSGlobalAddress
	}
	maps.Copy(env, p.EnvVars)
	variables, err := p.secretVariables()
	if err != nil {
		return plane{}, err
	}
	for _, v := range variables {
		if v.Env == "" || v.Secret == "" || v.Key == "" {
			return plane{}, errors.New("each of controlPlane.secrets needs Env, Secret and Key")
		}
		s, there, err := c.secret(ctx, namespace, v.Secret)
		if err != nil {
			return plane{}, err
		}
		value, ok := s.Data[v.Key]
		if !there || !ok {
			return plane{}, fmt.Errorf("the Secret %q with the key %q is not there", v.Secret, v.Key)
		}
		env[v.Env] = string(value)
	}
	return plane{by: "helm", env: env, config: []byte(p.Config)}, nil
}

func (p chartPlane) secretVariables() (out []secretVariable, err error) {
	if p.Secrets.Kind == yaml.MappingNode {
		var named map[string]secretVariable
		err = p.Secrets.Decode(&named)
		for _, v := range named {
			out = append(out, v)
		}
		return out, err
	}
	if p.Secrets.Kind != 0 {
		err = p.Secrets.Decode(&out)
	}
	return out, err
}
