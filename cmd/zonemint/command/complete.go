package command

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	pb "github.com/zonemint/zonemint/proto/zonemint/v1"
)

// complete asks the server for completions while a person types. It gives up
// soon and without a word.
func complete(c *connection, ask func(context.Context, *client) ([]cobra.Completion, error)) cobra.CompletionFunc {
	return func(cmd *cobra.Command, _ []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		server, err := c.open(io.Discard)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), time.Second)
		defer cancel()
		out, err := ask(ctx, server)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return out, cobra.ShellCompDirectiveNoFileComp
	}
}

func completeKeysets(c *connection) cobra.CompletionFunc {
	return complete(c, func(ctx context.Context, server *client) ([]cobra.Completion, error) {
		resp, err := server.keys.ListKeysets(ctx, &pb.ListKeysetsRequest{})
		var out []cobra.Completion
		for _, k := range resp.GetKeysets() {
			out = append(out, cobra.CompletionWithDesc(k.GetName(), enumName(k.GetProfile().String())+" tokens"))
		}
		return out, err
	})
}

// keysetFlag adds --keyset, which completes from the server.
func keysetFlag(cmd *cobra.Command, c *connection, keyset *string, usage string) {
	cmd.Flags().StringVar(keyset, "keyset", "", usage)
	_ = cmd.RegisterFlagCompletionFunc("keyset", completeKeysets(c)) // the flag exists
}

// completeKeysetArg completes the only argument of a command.
func completeKeysetArg(c *connection) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, typed string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return completeKeysets(c)(cmd, args, typed)
	}
}

// completeKeyArgs completes a keyset and then the serial of one of its keys in
// the states given, all if there are none.
func completeKeyArgs(c *connection, states ...string) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, typed string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) != 1 {
			return completeKeysetArg(c)(cmd, args, typed)
		}
		return completeKeys(c, args[0], func(k *pb.SigningKey) (cobra.Completion, bool) {
			serial := cobra.CompletionWithDesc(strconv.Itoa(int(k.GetSerial())), fmt.Sprintf("%s, %s", k.GetState(), k.GetKid()))
			return serial, len(states) == 0 || slices.Contains(states, k.GetState())
		})(cmd, args, typed)
	}
}

// completeSerials completes --serial from the keys of --keyset.
func completeSerials(c *connection, keyset *string) cobra.CompletionFunc {
	return func(cmd *cobra.Command, _ []string, typed string) ([]cobra.Completion, cobra.ShellCompDirective) {
		return completeKeyArgs(c)(cmd, []string{*keyset}, typed)
	}
}

// completeKIDs completes a flag with key IDs of the keyset that is the argument.
func completeKIDs(c *connection) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, typed string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) == 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return completeKeys(c, args[0], func(k *pb.SigningKey) (cobra.Completion, bool) {
			return cobra.CompletionWithDesc(k.GetKid(), k.GetState()), k.GetKid() != ""
		})(cmd, args, typed)
	}
}

func completeKeys(c *connection, keyset string, choose func(*pb.SigningKey) (cobra.Completion, bool)) cobra.CompletionFunc {
	return complete(c, func(ctx context.Context, server *client) ([]cobra.Completion, error) {
		resp, err := server.keys.ListSigningKeys(ctx, &pb.ListSigningKeysRequest{Keyset: keyset})
		var out []cobra.Completion
		for _, k := range resp.GetSigningKeys() {
			if text, fits := choose(k); fits {
				out = append(out, text)
			}
		}
		return out, err
	})
}

// completeConsumers completes a flag with the consumers of the keyset that is
// the argument.
func completeConsumers(c *connection) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, typed string) ([]cobra.Completion, cobra.ShellCompDirective) {
		return complete(c, func(ctx context.Context, server *client) ([]cobra.Completion, error) {
			resp, err := server.keys.ListKeysets(ctx, &pb.ListKeysetsRequest{})
			var out []cobra.Completion
			for _, k := range resp.GetKeysets() {
				if len(args) > 0 && k.GetName() == args[0] {
					out = append(out, k.GetConsumers()...)
				}
			}
			return out, err
		})(cmd, args, typed)
	}
}
