package command

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	pb "github.com/zonemint/zonemint/proto/zonemint/v1"
)

// A feed that ended is asked for again, at first soon.
const (
	againFirst = 500 * time.Millisecond
	againMost  = 15 * time.Second
)

// errSilence ends a stream on which the server says nothing.
var errSilence = errors.New("the server says nothing")

// watching is what the flags of "revocation watch" say.
type watching struct {
	conn   connection
	keyset string
	epoch  string
	since  int64
	form   *choice
}

func newRevocationWatch() *cobra.Command {
	var w watching
	cmd := &cobra.Command{
		Use:   "watch --keyset NAME",
		Short: "Print revocations as they happen",
		Long: `Print the revocation feed of a keyset: first what there is, or with --epoch and
--since what came after that position, and then whatever is added, one line each:

  reset     forget what was printed before; the feed begins anew
  revoked   a token's ID and when it expires
  lifted    a token's ID that is not revoked any more
  position  the epoch and number to go on from, after all up to there was printed

JSON is one line for every page of the feed. A feed that ends, because a replica
does, is asked for again where it ended. A server that says nothing for longer than
--timeout counts as one that has ended.`,
		Example: `  zonemint revocation watch --keyset zone
  zonemint revocation watch --keyset zone --epoch 0198f1c4-6c1e-7a51-9d55-4f0ad6f21b7e --since 1042 -o json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return w.run(cmd) },
	}
	requiredKeyset(cmd, &w.conn, &w.keyset)
	cmd.Flags().StringVar(&w.epoch, "epoch", "", "the `epoch` of the position to go on from")
	cmd.Flags().Int64Var(&w.since, "since", 0, "the `number` of the position to go on from")
	w.form = outputFlag(cmd, asTable, asJSON)
	connectionFlags(cmd, &w.conn)
	cmd.MarkFlagsRequiredTogether("epoch", "since")
	return cmd
}

// run follows the feed until the user ends it or asking again makes no sense.
func (w watching) run(cmd *cobra.Command) error {
	c, err := w.conn.open(cmd.ErrOrStderr())
	if err != nil {
		return err
	}
	ctx, out, pause, heard := cmd.Context(), cmd.OutOrStdout(), againFirst, false
	for {
		began := w
		err := w.follow(ctx, c, out)
		heard = heard || w.epoch != began.epoch || w.since != began.since
		switch {
		case err != nil && (exitCode(err) != exitUnavailable || !heard):
			return err // a server that was never there is more likely a wrong address
		case err != nil:
			warn(cmd.ErrOrStderr(), "%s; asking again in %s", describe(err), pause)
		}
		if w != began { // it was good for a while
			pause = againFirst
		}
		select {
		case <-ctx.Done():
			return nil // Ctrl-C is how this ends
		case <-time.After(pause):
		}
		pause = min(2*pause, againMost)
	}
}

// follow prints one stream from the position on, and keeps the position. It
// returns nil when the server or the user ends the stream.
func (w *watching) follow(user context.Context, c *client, out io.Writer) error {
	ctx, cancel := context.WithCancelCause(user)
	defer cancel(nil)
	silence := time.AfterFunc(w.conn.timeout, func() { cancel(errSilence) })
	defer silence.Stop()
	stream, err := c.revocations.WatchRevocations(ctx, &pb.WatchRevocationsRequest{Keyset: w.keyset, Epoch: w.epoch, Since: w.since})
	if err != nil {
		return w.failed(ctx, err)
	}
	defer func() { _ = stream.Close() }() // it is over, one way or another
	for stream.Receive() {
		silence.Reset(w.conn.timeout)
		page := stream.Msg()
		if err := w.print(out, page); err != nil {
			return err
		}
		w.epoch, w.since = page.GetEpoch(), page.GetSeq()
	}
	if err := stream.Err(); err != nil {
		return w.failed(ctx, err)
	}
	return nil
}

// failed is an error of the stream, as a call would have failed. That the user
// has left is none.
func (w *watching) failed(ctx context.Context, err error) error {
	switch cause := context.Cause(ctx); {
	case errors.Is(cause, context.Canceled):
		return nil
	case errors.Is(cause, errSilence):
		err = connect.NewError(connect.CodeDeadlineExceeded, context.DeadlineExceeded)
	}
	return w.conn.failed(err)
}

// print prints a page, unless it is a mere sign of life.
func (w *watching) print(out io.Writer, page *pb.WatchRevocationsResponse) error {
	moved := page.GetEpoch() != w.epoch || page.GetSeq() != w.since
	if !moved && !page.GetReset_() && len(page.GetRevoked()) == 0 && len(page.GetLifted()) == 0 {
		return nil
	}
	if w.form.value == asJSON {
		return printLine(out, page)
	}
	var text bytes.Buffer
	if page.GetReset_() {
		fmt.Fprintf(&text, "reset     %s\n", printable(page.GetEpoch()))
	}
	for _, r := range page.GetRevoked() {
		fmt.Fprintf(&text, "revoked   %s  %s\n", printable(r.GetJti()), time.Unix(r.GetExp(), 0).UTC().Format(time.RFC3339))
	}
	for _, jti := range page.GetLifted() {
		fmt.Fprintf(&text, "lifted    %s\n", printable(jti))
	}
	if !page.GetMore() {
		fmt.Fprintf(&text, "position  %s  %d\n", printable(page.GetEpoch()), page.GetSeq())
	}
	_, err := text.WriteTo(out)
	return err
}

// printLine prints a message as JSON in one line.
func printLine(out io.Writer, m proto.Message) error {
	b, err := protojson.MarshalOptions{EmitDefaultValues: true}.Marshal(m)
	if err != nil {
		return err
	}
	var line bytes.Buffer
	if err := json.Compact(&line, b); err != nil {
		return err
	}
	line.WriteByte('\n')
	_, err = line.WriteTo(out)
	return err
}
