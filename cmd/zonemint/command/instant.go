package command

import (
	"errors"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// instant is the value of a flag for a time: in full, or as the distance from
// now. It implements pflag.Value.
type instant struct {
	at     time.Time
	text   string
	future bool // which way a distance goes
}

func (i *instant) String() string { return i.text }

func (i *instant) Type() string { return "TIME|DURATION" }

// Set reads a time.
func (i *instant) Set(s string) error {
	if d, err := time.ParseDuration(s); err == nil {
		if d < 0 {
			return errors.New("a duration must not be negative")
		}
		if !i.future {
			d = -d
		}
		i.at, i.text = time.Now().Add(d), s
		return nil
	}
	at, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return errors.New("must be a time like 2026-11-21T05:00:00Z or a duration like 2h")
	}
	i.at, i.text = at, s
	return nil
}

// proto returns the time for a request, nil if the flag was not given.
func (i *instant) proto() *timestamppb.Timestamp {
	if i.text == "" {
		return nil
	}
	return timestamppb.New(i.at)
}

// pastFlag adds a flag for a time, in which "2h" is two hours ago.
func pastFlag(cmd *cobra.Command, name, usage string) *instant {
	i := &instant{}
	cmd.Flags().Var(i, name, usage)
	return i
}

// futureFlag adds a flag for a time, in which "2h" is in two hours.
func futureFlag(cmd *cobra.Command, name, usage string) *instant {
	i := &instant{future: true}
	cmd.Flags().Var(i, name, usage)
	return i
}
