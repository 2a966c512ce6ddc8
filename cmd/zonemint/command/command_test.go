package command

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/zonemint/zonemint/proto/zonemint/v1"
	"github.com/zonemint/zonemint/signer"
	"github.com/zonemint/zonemint/store"
)

// Every command says what it is for, and shows how it is used or has
// subcommands that do.
func TestCommandsExplainThemselves(t *testing.T) {
	t.Parallel()
	var walk func(cmd *cobra.Command)
	walk = func(cmd *cobra.Command) {
		if cmd.Short == "" || strings.HasSuffix(cmd.Short, ".") {
			t.Errorf("%s: Short is %q", cmd.CommandPath(), cmd.Short)
		}
		if !cmd.HasSubCommands() && cmd.Example == "" && cmd.Long == "" {
			t.Errorf("%s has neither an example nor a long text", cmd.CommandPath())
		}
		for _, sub := range cmd.Commands() {
			walk(sub)
		}
	}
	for _, cmd := range newRoot(IO{strings.NewReader(""), io.Discard, io.Discard}).Commands() {
		walk(cmd)
	}
}

// What an example shows must at least be a command with these flags.
func TestExamplesParse(t *testing.T) {
	t.Parallel()
	root := newRoot(IO{strings.NewReader(""), io.Discard, io.Discard})
	var walk func(cmd *cobra.Command)
	walk = func(cmd *cobra.Command) {
		text := strings.ReplaceAll(cmd.Example, "\\\n", " ")
		for line := range strings.Lines(text) {
			if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
				continue
			}
			if !strings.Contains(line, "zonemint ") {
				t.Errorf("%q is no example of zonemint", line)
			}
			for piece := range strings.SplitSeq(line, "|") {
				checkExample(t, root, piece) // others may be in the pipe
			}
		}
		for _, sub := range cmd.Commands() {
			walk(sub)
		}
	}
	walk(root)
}

func checkExample(t *testing.T, root *cobra.Command, line string) {
	t.Helper()
	_, line, ok := strings.Cut(line, "zonemint ")
	if !ok {
		return
	}
	for _, end := range []string{"#", ">", ";", ")", " -- "} {
		line, _, _ = strings.Cut(line, end)
	}
	cmd, rest, err := root.Find(strings.Fields(line))
	if err != nil || cmd == root {
		t.Errorf("%q: %v", line, err)
		return
	}
	for _, word := range rest {
		name, isLong := strings.CutPrefix(word, "--")
		name, _, _ = strings.Cut(name, "=")
		if isLong && cmd.Flags().Lookup(name) == nil {
			t.Errorf("%q: %s has no flag %s", line, cmd.CommandPath(), word)
		}
	}
}

func TestExitCodes(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		err  error
		want int
	}{
		{errors.New("anything"), exitFailure},
		{usage{errors.New("wrong")}, exitUsage},
		{fmt.Errorf("wrapped: %w", usage{errors.New("wrong")}), exitUsage},
		{coded{errors.New("bad token"), exitInvalid}, exitInvalid},
		{verdict(&pb.ReconcileSigningKeysResponse{Unknown: []*pb.BackendKey{{}}, Failed: []string{"hsm"}}), exitFound},
		{verdict(&pb.ReconcileSigningKeysResponse{Failed: []string{"hsm"}}), exitUnavailable},
		{connect.NewError(connect.CodeUnauthenticated, nil), exitDenied},
		{&callError{connect.NewError(connect.CodePermissionDenied, nil), "no"}, exitDenied},
		{connect.NewError(connect.CodeUnavailable, nil), exitUnavailable},
		{connect.NewError(connect.CodeResourceExhausted, nil), exitUnavailable},
		{connect.NewError(connect.CodeInvalidArgument, nil), exitUsage},
		{connect.NewError(connect.CodeInternal, nil), exitFailure},
		{fmt.Errorf("opening: %w", store.ErrUnavailable), exitUnavailable},
		{&signer.Error{Op: "open", Code: signer.Unavailable, Err: errors.New("down")}, exitUnavailable},
		{&signer.Error{Op: "open", Code: signer.Denied, Err: errors.New("PIN")}, exitFailure},
		{context.Canceled, exitFailure},
	} {
		if got := exitCode(tc.err); got != tc.want {
			t.Errorf("%T %v: exit code %d, want %d", tc.err, tc.err, got, tc.want)
		}
	}
}

// What a server or a token says must not reach the terminal as it is.
func TestTableIsPrintable(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	tab := table{header: []string{"A", "B"}}
	tab.add("one\x1b[31m", "")
	tab.add("two\nlines", "ünïcode")
	if err := tab.print(&out); err != nil {
		t.Fatal(err)
	}
	const want = "A              B\n\"one\\x1b[31m\"  -\n\"two\\nlines\"   ünïcode\n"
	if out.String() != want {
		t.Errorf("got  %q\nwant %q", out.String(), want)
	}
}

func TestSpan(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]string{
		0: "", 5 * time.Second: "5s", time.Minute: "1m", 90 * time.Second: "1m30s", 10 * time.Second: "10s",
		24 * time.Hour: "24h", 20 * time.Hour: "20h", 90 * time.Minute: "1h30m", time.Hour + time.Second: "1h0m1s",
	} {
		if got := span(durationpb.New(d)); got != want {
			t.Errorf("%s: %q, want %q", d, got, want)
		}
	}
}

func TestShellQuoting(t *testing.T) {
	t.Parallel()
	for word, want := range map[string]string{
		"": "''", "zone-1": "zone-1", "dataplane/default": "dataplane/default", "a b": "'a b'", "it's": `'it'\''s'`,
		"$(reboot)": "'$(reboot)'", "~": "'~'", "a;b": "'a;b'", "ünï": "'ünï'",
	} {
		if got := shell(word); got != want {
			t.Errorf("%q: %s, want %s", word, got, want)
		}
	}
}

// What a server wants signed must not be a token, whose form is header.claims.
func TestChallengesThatAreSigned(t *testing.T) {
	t.Parallel()
	for challenge, good := range map[string]bool{
		"zonemint-challenge-v1:1795250881:AezzV1YaGv8aMMEM22M8": true, "two words. And more": true,
		"": false, "eyJhbGciOiJFZERTQSJ9.eyJab25lIjoid2VzdCJ9": false,
		"eyJhbGciOiJFZERTQSIsImI2NCI6ZmFsc2V9.Zone: west": false, // RFC 7797
		"IHsiYWxnIjoiUlMyNTYifQ.e30":                      false, // begins with a space
		"esc\x1b[31m":                                     false, "two\nlines": false,
	} {
		if err := checkChallenge(challenge); (err == nil) != good {
			t.Errorf("%q: %v", challenge, err)
		}
	}
}

func TestInstants(t *testing.T) {
	t.Parallel()
	past, future := &instant{}, &instant{future: true}
	for _, i := range []*instant{past, future} {
		if i.proto() != nil {
			t.Error("a flag that was not given is a time")
		}
		for _, bad := range []string{"", "soon", "-2h", "2026-11-21", "90d"} {
			if i.Set(bad) == nil {
				t.Errorf("%q is a time", bad)
			}
		}
		if err := i.Set("2026-11-21T05:00:00+01:00"); err != nil || moment(i.proto()) != "2026-11-21T04:00:00Z" {
			t.Errorf("%s, %v", moment(i.proto()), err)
		}
	}
	now := time.Now()
	if err := errors.Join(past.Set("2h"), future.Set("2h")); err != nil {
		t.Fatal(err)
	}
	if d := now.Sub(past.at).Round(time.Minute); d != 2*time.Hour {
		t.Errorf("2h is %s ago", d)
	}
	if d := future.at.Sub(now).Round(time.Minute); d != 2*time.Hour {
		t.Errorf("2h is in %s", d)
	}
}

// The lists that flags offer are those of the API.
func TestEnumerations(t *testing.T) {
	t.Parallel()
	if got := list(namesOf(pb.Profile_name)); got != list(profiles()) {
		t.Errorf("the API has profiles %s, commands offer %s", got, list(profiles()))
	}
	if got := list(distributions()); got != "jwks,kuma-sync,manual" {
		t.Errorf("distributions = %s", got)
	}
	for _, name := range algorithms() {
		if _, err := signer.Parse(name); err != nil {
			t.Errorf("algorithm %s: %v", name, err)
		}
	}
}
