package command

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
)

// confirm asks a person to type a word before something that cannot be taken
// back. It is for terminals only; elsewhere flags say what is wanted.
func confirm(cmd *cobra.Command, question, word string) error {
	_, _ = fmt.Fprintf(cmd.ErrOrStderr(), "%s\nType %s to go on: ", question, word)
	typed, err := readLine(cmd.Context(), cmd.InOrStdin())
	if err != nil {
		say(cmd.ErrOrStderr(), "") // the question has no end of line
		return err
	}
	if strings.TrimSpace(typed) != word {
		return errors.New("that is not " + word + "; nothing was done")
	}
	return nil
}

// readLine reads a line, and gives up if the user presses Ctrl-C meanwhile.
func readLine(ctx context.Context, in io.Reader) (string, error) {
	type result struct {
		text string
		err  error
	}
	read := make(chan result, 1)
	go func() { // stays behind after Ctrl-C, until the process ends
		text, err := bufio.NewReader(in).ReadString('\n')
		if errors.Is(err, io.EOF) {
			err = nil // what was typed before it counts
		}
		read <- result{text, err}
	}()
	select {
	case <-ctx.Done():
		return "", errors.New("interrupted; nothing was done")
	case r := <-read:
		return r.text, r.err
	}
}
