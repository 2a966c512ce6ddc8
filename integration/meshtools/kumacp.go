package main

import (
	"os"
	"strings"

	"github.com/spf13/cobra"
)

// newKumaCP stands in for a control plane: it starts as one, and ends.
func newKumaCP() *cobra.Command {
	var path string
	run := &cobra.Command{Use: "run", Args: cobra.NoArgs, RunE: func(_ *cobra.Command, _ []string) error {
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return plane{by: "kuma-cp", env: environment(), config: text}.start()
	}}
	run.Flags().StringVarP(&path, "config-file", "c", "", "configuration file")
	return group("kuma-cp", require(run, "config-file"))
}

func environment() map[string]string {
	env := map[string]string{}
	for _, e := range os.Environ() {
		name, value, _ := strings.Cut(e, "=")
		env[name] = value
	}
	return env
}
