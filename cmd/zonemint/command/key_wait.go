package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	pb "github.com/zonemint/zonemint/proto/zonemint/v1"
)

// pollEvery is how often a rotation is looked at. Replicas learn of changes
// every few seconds.
const pollEvery = time.Second

// await shows progress until the successor signs.
func (r rotation) await(cmd *cobra.Command, c *client, resp *pb.RotateKeysetResponse) error {
	serial, err := successor(resp)
	if err != nil {
		return err
	}
	keyset := resp.GetSteps()[0].GetKeyset()
	ctx := cmd.Context()
	if cmd.Flags().Changed("timeout") {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, r.conn.timeout)
		defer cancel()
	}
	p := newProgress(cmd.ErrOrStderr())
	err = awaitActive(ctx, c, keyset, serial, p)
	p.end()
	if err != nil {
		return lastWords(ctx, err, fmt.Sprintf("%s %d", keyset, serial))
	}
	say(cmd.ErrOrStderr(), "%s, serial %d, signs.", keyset, serial)
	return nil
}

// successor returns the serial that a rotation lets sign.
func successor(resp *pb.RotateKeysetResponse) (int32, error) {
	i := slices.IndexFunc(resp.GetSteps(), func(s *pb.PlannedStep) bool { return s.GetAction() == "activate" })
	if i < 0 {
		return 0, errors.New("the server names no key that will take over; \"zonemint key list\" shows the keys")
	}
	return resp.GetSteps()[i].GetSerial(), nil
}

// awaitActive returns nil when the key signs. A server that does not answer for
// a while is waited for: the rotation goes on without us.
func awaitActive(ctx context.Context, c *client, keyset string, serial int32, p *progress) error {
	for {
		resp, err := c.keys.GetSigningKey(ctx, &pb.GetSigningKeyRequest{Keyset: keyset, Serial: serial})
		switch state := resp.GetSigningKey().GetState(); {
		case ctx.Err() != nil:
			return ctx.Err()
		case exitCode(err) == exitUnavailable:
			p.show("the server does not answer: " + describe(err))
		case connect.CodeOf(err) == connect.CodeNotFound:
			p.show(fmt.Sprintf("serial %d is yet to be made", serial))
		case err != nil:
			return err
		case state == "active":
			return nil
		case ended(state) || state == "retiring": // somebody activated another one meanwhile
			return fmt.Errorf("%s is %s: it will not take over. \"zonemint key list --keyset %s\" shows the keys",
				label(resp.GetSigningKey()), withReason(state, resp.GetSigningKey().GetReason()), keyset)
		default:
			p.show(waitingText(resp))
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pollEvery):
		}
	}
}

func withReason(state, reason string) string {
	if reason == "" {
		return state
	}
	return state + " (" + reason + ")"
}

// waitingText says what the activation of a key waits for.
func waitingText(resp *pb.GetSigningKeyResponse) string {
	k := resp.GetSigningKey()
	parts := []string{label(k) + " is " + k.GetState()}
	i := slices.IndexFunc(resp.GetSteps(), func(s *pb.PlannedStep) bool { return s.GetAction() == "activate" })
	if i < 0 {
		return parts[0]
	}
	s := resp.GetSteps()[i]
	if s.GetAt() != nil {
		parts = append(parts, "may sign from "+moment(s.GetAt()))
	}
	if len(s.GetWaitingFor()) > 0 {
		parts = append(parts, "waits for: "+strings.Join(s.GetWaitingFor(), "; "))
	}
	return strings.Join(parts, ", ")
}

// lastWords is the error of a wait that did not succeed. What it waited for is on
// the screen already.
func lastWords(ctx context.Context, err error, key string) error {
	more := fmt.Sprintf("The rotation goes on; \"zonemint key show %s\" shows it.", key)
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return coded{errors.New("the successor does not sign yet (--timeout)\n" + more), exitUnavailable}
	case ctx.Err() != nil:
		return errors.New("interrupted\n" + more)
	default:
		return err
	}
}

// progress tells a person how far something is: one line that changes on a
// terminal, elsewhere one line per change.
type progress struct {
	out      io.Writer
	terminal bool
	last     string
}

func newProgress(out io.Writer) *progress { return &progress{out: out, terminal: isTerminal(out)} }

func (p *progress) show(text string) {
	text = printable(text)
	if text == p.last {
		return
	}
	p.last = text
	if p.terminal {
		_, _ = fmt.Fprintf(p.out, "\r\x1b[K%s", text)
		return
	}
	say(p.out, "%s", text)
}

// end leaves the line for what comes next.
func (p *progress) end() {
	if p.terminal && p.last != "" {
		say(p.out, "")
	}
}
