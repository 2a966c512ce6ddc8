package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

// product is what this kumactl talks to.
const product = "Kuma"

func newKumactl() *cobra.Command {
	return group("kumactl",
		group("config", group("control-planes", newControlPlanesAdd(), newControlPlanesSwitch())),
		group("generate", newGenerateZoneToken()),
		newKumactlApply(), newKumactlDelete(),
	)
}

// contexts are the control planes that kumactl knows, and the one that it talks to.
type contexts struct {
	Current string               `json:"current"`
	Planes  map[string]apiServer `json:"planes"`
}

type apiServer struct {
	Address string `json:"address"`
	Token   string `json:"token"`
}

func contextsPath() (string, error) {
	home, err := os.UserHomeDir()
	return filepath.Join(home, ".kumactl", "config"), err
}

// readContexts returns what was written, or else what is there from the beginning.
func readContexts() (contexts, error) {
	c := contexts{Current: "local", Planes: map[string]apiServer{"local": {Address: "http://localhost:5681"}}}
	path, err := contextsPath()
	if err != nil {
		return c, err
	}
	text, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return c, nil
	}
	return c, errors.Join(err, json.Unmarshal(text, &c))
}

func (c contexts) write() error {
	path, err := contextsPath()
	if err != nil {
		return err
	}
	text, err := json.Marshal(c)
	return errors.Join(err, os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, text, 0o600))
}

// current returns the control plane that kumactl talks to.
func current() (apiServer, error) {
	c, err := readContexts()
	return c.Planes[c.Current], err
}

func newControlPlanesAdd() *cobra.Command {
	var name, authType string
	var s apiServer
	var conf map[string]string
	cmd := &cobra.Command{Use: "add", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		s.Token = conf["token"]
		if authType != "tokens" || s.Token == "" || len(conf) != 1 {
			return errors.New("--auth-conf is not valid")
		}
		if err := s.identify(cmd.Context()); err != nil {
			return err
		}
		c, err := readContexts()
		if err != nil {
			return err
		}
		if _, there := c.Planes[name]; there {
			return fmt.Errorf("Control Plane with name %q already exists. Use --overwrite to replace an existing one.", name) //nolint:revive // its words
		}
		c.Planes[name], c.Current = s, name
		if err := c.write(); err != nil {
			return err
		}
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "added Control Plane %q\nswitched active Control Plane to %q\n", name, name)
		return err
	}}
	f := cmd.Flags()
	f.StringVar(&name, "name", "", "the name")
	f.StringVar(&s.Address, "address", "", "the URL")
	f.StringVar(&authType, "auth-type", "", "how to authenticate")
	f.StringToStringVar(&conf, "auth-conf", nil, "with what")
	return require(cmd, "name", "address")
}

// identify asks who is there, without a credential, and refuses another product.
func (s apiServer) identify(ctx context.Context) error {
	status, body, err := apiServer{Address: s.Address}.call(ctx, http.MethodGet, "", nil)
	if err != nil {
		return err
	}
	var is struct{ Product, Version string }
	if status != http.StatusOK || json.Unmarshal(body, &is) != nil {
		return fmt.Errorf("%s is no control plane: status %d", s.Address, status)
	}
	if is.Product != product {
		return fmt.Errorf("this CLI is for %s but the control plane you're connected to is %s", product, is.Product)
	}
	return nil
}

func (s apiServer) call(ctx context.Context, method, path string, body any) (int, []byte, error) {
	text := ""
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return 0, nil, err
		}
		text = string(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, s.Address+path, strings.NewReader(text))
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("User-Agent", "kumactl/2.14.3 (linux; amd64; Kuma/unknown)")
	if s.Token != "" {
		req.Header.Set("Authorization", "Bearer "+s.Token)
	}
	if text != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	return resp.StatusCode, answer, err
}

func newControlPlanesSwitch() *cobra.Command {
	var name string
	cmd := &cobra.Command{Use: "switch", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		c, err := readContexts()
		if err != nil {
			return err
		}
		if _, there := c.Planes[name]; !there {
			return fmt.Errorf("there is no Control Plane with name %q", name)
		}
		c.Current = name
		if err := c.write(); err != nil {
			return err
		}
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "switched active Control Plane to %q\n", name)
		return err
	}}
	cmd.Flags().StringVar(&name, "name", "", "the name")
	return require(cmd, "name")
}

func newGenerateZoneToken() *cobra.Command {
	var wish struct {
		Zone     string   `json:"zone"`
		Scope    []string `json:"scope"`
		ValidFor string   `json:"validFor"`
	}
	cmd := &cobra.Command{Use: "zone-token", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		validFor, err := cmd.Flags().GetDuration("valid-for")
		if err != nil {
			return err
		}
		wish.ValidFor = validFor.String()
		for _, s := range wish.Scope {
			if !slices.Contains([]string{"ingress", "egress"}, s) {
				return fmt.Errorf("invalid scope %q", s)
			}
		}
		s, err := current()
		if err != nil {
			return err
		}
		if err := s.identify(cmd.Context()); err != nil {
			fmt.Fprintln(cmd.ErrOrStderr(), "WARNING:", err)
		}
		status, body, err := s.call(cmd.Context(), http.MethodPost, "/tokens/zone", wish)
		if err != nil {
			return err
		}
		if status != http.StatusOK {
			return fmt.Errorf("failed to generate a zone token: (%d): %s", status, body)
		}
		_, err = cmd.OutOrStdout().Write(body)
		return err
	}}
	f := cmd.Flags()
	f.StringVar(&wish.Zone, "zone", "", "the zone")
	f.StringSliceVar(&wish.Scope, "scope", []string{"ingress", "egress"}, "what it is for")
	f.Duration("valid-for", 0, "how long it is valid")
	return require(cmd, "zone", "valid-for")
}

// resource is a secret, as kumactl reads it from a file.
type resource struct {
	Type string `json:"type"`
	Mesh string `json:"mesh,omitempty"`
	Name string `json:"name"`
	Data []byte `json:"data"`
}

func newKumactlApply() *cobra.Command {
	var path string
	cmd := &cobra.Command{Use: "apply", Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
		documents, err := readDocuments(cmd.InOrStdin(), path)
		if err != nil {
			return err
		}
		s, err := current()
		if err != nil {
			return err
		}
		for _, d := range documents {
			var r resource
			if err := decodeStrictly(d, &r); err != nil {
				return err
			}
			if err := s.apply(cmd.Context(), r); err != nil {
				return err
			}
		}
		return nil
	}}
	cmd.Flags().StringVarP(&path, "file", "f", "", "a file; - is stdin")
	return require(cmd, "file")
}

func (s apiServer) apply(ctx context.Context, r resource) error {
	path := "/global-secrets/" + r.Name
	switch {
	case r.Type == "Secret" && r.Mesh != "":
		path = "/meshes/" + r.Mesh + "/secrets/" + r.Name
	case r.Type != "GlobalSecret" || r.Mesh != "" || r.Name == "":
		return fmt.Errorf("%s %q of mesh %q is no secret", r.Type, r.Name, r.Mesh)
	}
	status, body, err := s.call(ctx, http.MethodPut, path, r)
	if err == nil && status != http.StatusOK && status != http.StatusCreated {
		err = fmt.Errorf("failed to apply %s %q: (%d): %s", r.Type, r.Name, status, body)
	}
	return err
}

func newKumactlDelete() *cobra.Command {
	return &cobra.Command{Use: "delete TYPE NAME", Args: cobra.ExactArgs(2), RunE: func(cmd *cobra.Command, args []string) error {
		if args[0] != "global-secret" {
			return fmt.Errorf("unknown TYPE: %s", args[0])
		}
		s, err := current()
		if err != nil {
			return err
		}
		status, body, err := s.call(cmd.Context(), http.MethodDelete, "/global-secrets/"+args[1], nil)
		if err == nil && status != http.StatusOK {
			err = fmt.Errorf("failed to delete GlobalSecret %q: (%d): %s", args[1], status, body)
		}
		return err
	}}
}
