package command

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	pb "github.com/zonemint/zonemint/proto/zonemint/v1"
	"github.com/zonemint/zonemint/service/caller"
	"github.com/zonemint/zonemint/signer"
	"github.com/zonemint/zonemint/store"
	"github.com/zonemint/zonemint/token"
)

// choice is the value of a flag out of a fixed list. It implements pflag.Value.
type choice struct {
	value string
	from  []string
}

func (c *choice) String() string { return c.value }

func (c *choice) Type() string { return strings.Join(c.from, "|") }

// Set refuses what is not on the list.
func (c *choice) Set(s string) error {
	if !slices.Contains(c.from, s) {
		return fmt.Errorf("must be one of %s", strings.Join(c.from, ", "))
	}
	c.value = s
	return nil
}

// choiceFlag adds a flag with a fixed list of values, which shells complete.
func choiceFlag(cmd *cobra.Command, name, short, value string, from []string, usage string) *choice {
	c := &choice{value, from}
	cmd.Flags().VarP(c, name, short, usage)
	_ = cmd.RegisterFlagCompletionFunc(name, cobra.FixedCompletions(from, cobra.ShellCompDirectiveNoFileComp)) // the flag exists
	return c
}

// choices is the same for a flag with several values, separated by commas or
// given one by one. The first one given replaces the default.
type choices struct {
	values []string
	from   []string
	given  bool
}

func (c *choices) String() string { return strings.Join(c.values, ",") }

func (c *choices) Type() string { return strings.Join(c.from, "|") + ",..." }

// Set adds to the values.
func (c *choices) Set(s string) error {
	if !c.given {
		c.given, c.values = true, nil
	}
	for v := range strings.SplitSeq(s, ",") {
		v = strings.TrimSpace(v)
		switch {
		case !slices.Contains(c.from, v):
			return fmt.Errorf("%q must be one of %s", v, strings.Join(c.from, ", "))
		case slices.Contains(c.values, v):
			return fmt.Errorf("%q is there twice", v)
		}
		c.values = append(c.values, v)
	}
	return nil
}

func choicesFlag(cmd *cobra.Command, name string, values, from []string, usage string) *choices {
	c := &choices{values: values, from: from}
	cmd.Flags().Var(c, name, usage)
	_ = cmd.RegisterFlagCompletionFunc(name, func(_ *cobra.Command, _ []string, typed string) ([]cobra.Completion, cobra.ShellCompDirective) {
		before := typed[:strings.LastIndex(typed, ",")+1]
		var out []cobra.Completion
		for _, v := range from {
			out = append(out, before+v)
		}
		return out, cobra.ShellCompDirectiveNoFileComp
	}) // the flag exists
	return c
}

// profiles returns the profiles that the API has, as commands name them.
func profiles() []string {
	var out []string
	for _, p := range token.Profiles() {
		out = append(out, string(p))
	}
	return out
}

func distributions() []string { return namesOf(pb.Distribution_name) }

// algorithms returns the names of the algorithms, alone and with each size of
// key.
func algorithms() []string {
	var out []string
	for _, a := range signer.Algorithms() {
		for _, name := range []string{a.JWS(), a.String()} {
			if !slices.Contains(out, name) {
				out = append(out, name)
			}
		}
	}
	return out
}

// states returns the states of keys, in the order of their lives.
func states() []string {
	return []string{
		string(store.StateCreating), string(store.StatePublished), string(store.StateActive), string(store.StateRetiring),
		string(store.StateRemoved), string(store.StateDistrusted), string(store.StateAbandoned), string(store.StateFailed),
	}
}

func scopes() []string { return []string{token.ScopeCP, token.ScopeIngress, token.ScopeEgress} }

func roles() []string {
	var out []string
	for _, r := range caller.Roles() {
		out = append(out, string(r))
	}
	return out
}

// namesOf returns the values of an enumeration of the API as commands name
// them, without the one that says nothing.
func namesOf(names map[int32]string) []string {
	var out []string
	for n := int32(1); n < int32(len(names)); n++ {
		out = append(out, enumName(names[n]))
	}
	return out
}

// enumName turns "DISTRIBUTION_KUMA_SYNC" into "kuma-sync".
func enumName(s string) string {
	_, name, _ := strings.Cut(s, "_")
	return strings.ToLower(strings.ReplaceAll(name, "_", "-"))
}
