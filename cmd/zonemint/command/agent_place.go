package command

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os/user"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/zonemint/zonemint/agent"
	"github.com/zonemint/zonemint/kubernetes"
)

// place is where the flags say that a token is kept.
type place struct {
	out, mode, owner string
	shared           bool

	secret, key string
	adopt       bool
	cluster     kubernetes.Config
}

func (p *place) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&p.out, "out", "", "keep the token in this `file`")
	f.StringVar(&p.mode, "mode", "0600", "with --out: the `mode` of the file")
	f.StringVar(&p.owner, "owner", "", "with --out: who owns the file, `USER[:GROUP]` by names or numbers (default: who runs the agent)")
	f.BoolVar(&p.shared, "shared-folder", false, "with --out: accept a folder in which everybody may replace files, such as an emptyDir of Kubernetes")
	f.StringVar(&p.secret, "secret", "", "keep the token in this Secret of Kubernetes, `[NAMESPACE/]NAME`")
	f.StringVar(&p.key, "secret-key", "token", "with --secret: the `key` in it")
	f.BoolVar(&p.adopt, "adopt", false, "with --secret: take over one that an agent did not make")
	f.StringVar(&p.cluster.Kubeconfig, "kubeconfig", "", "with --secret: a kubeconfig `file` (default: the pod's service account, then KUBECONFIG or ~/.kube/config)")
	f.StringVar(&p.cluster.Context, "context", "", "with --secret: the `context` of the kubeconfig (default: its current one)")
	cmd.MarkFlagsOneRequired("out", "secret")
	for _, flag := range []string{"secret", "secret-key", "adopt", "kubeconfig", "context"} {
		cmd.MarkFlagsMutuallyExclusive("out", flag)
	}
	for _, flag := range []string{"mode", "owner", "shared-folder"} {
		cmd.MarkFlagsMutuallyExclusive("secret", flag)
	}
}

func (p *place) check() error {
	_, err := p.fileMode()
	_, _, oerr := p.owners()
	err = errors.Join(err, oerr)
	if p.key == "" || strings.Trim(p.key, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.") != "" {
		err = errors.Join(err, fmt.Errorf("--secret-key: %q may have letters, digits, '-', '_' and '.' only", p.key))
	}
	return err
}

func (p *place) fileMode() (fs.FileMode, error) {
	n, err := strconv.ParseUint(p.mode, 8, 12)
	if err != nil {
		return 0, fmt.Errorf("--mode: %q is not an octal mode such as 0640", p.mode)
	}
	return fs.FileMode(n), nil
}

// owners returns the IDs of user and group, -1 for those that are not named.
func (p *place) owners() (uid, gid int, err error) {
	uid, gid = -1, -1
	name, group, _ := strings.Cut(p.owner, ":")
	if name != "" {
		uid, err = idOf(name, func(name string) (string, error) {
			u, err := user.Lookup(name)
			if err != nil {
				return "", err
			}
			return u.Uid, nil
		})
	}
	if group != "" && err == nil {
		gid, err = idOf(group, func(name string) (string, error) {
			g, err := user.LookupGroup(name)
			if err != nil {
				return "", err
			}
			return g.Gid, nil
		})
	}
	if err != nil {
		return 0, 0, fmt.Errorf("--owner: %w", err)
	}
	return uid, gid, nil
}

// idOf returns the number that a name stands for, or is.
func idOf(name string, lookup func(string) (string, error)) (int, error) {
	if n, err := strconv.ParseUint(name, 10, 31); err == nil {
		return int(n), nil
	}
	id, err := lookup(name)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(id)
}

// opened is a place that is ready to keep a token.
type opened struct {
	agent.Sink
	io.Closer
	name string   // of the file or the Secret
	env  []string // tells it to a command
}

func (p *place) open() (opened, error) {
	if p.secret != "" {
		return p.openSecret()
	}
	mode, err := p.fileMode()
	if err != nil {
		return opened{}, err
	}
	uid, gid, err := p.owners()
	if err != nil {
		return opened{}, err
	}
	f, err := agent.OpenFile(agent.FileOptions{Path: p.out, Mode: mode, UID: uid, GID: gid, SharedFolder: p.shared})
	if err != nil {
		return opened{}, fmt.Errorf("--out: %w", err)
	}
	return opened{f, f, f.Path(), []string{"ZONEMINT_AGENT_FILE=" + f.Path()}}, nil
}

func (p *place) openSecret() (opened, error) {
	c, err := kubernetes.New(p.cluster)
	if err != nil {
		return opened{}, usage{err}
	}
	namespace, name, ok := strings.Cut(p.secret, "/")
	if !ok {
		namespace, name = "", p.secret
	}
	s := &agent.Secret{Secrets: c, Namespace: cmp.Or(namespace, c.Namespace()), Name: name, Key: p.key, Adopt: p.adopt}
	at := s.Namespace + "/" + s.Name
	return opened{s, io.NopCloser(nil), "Secret " + at, []string{"ZONEMINT_AGENT_SECRET=" + at}}, nil
}
