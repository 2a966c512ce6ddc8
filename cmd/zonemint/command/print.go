package command

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// The forms of output. JSON has the API's own messages and field names.
const (
	asTable = "table"
	asToken = "token"
	asJSON  = "json"
)

// outputFlag adds -o. The first form is the default.
func outputFlag(cmd *cobra.Command, forms ...string) *choice {
	return choiceFlag(cmd, "output", "o", forms[0], forms, "how to print the result")
}

// table is a result for people: rows under a header, or without a header names
// and values.
type table struct {
	header []string
	rows   [][]string
}

func (t *table) add(cells ...string) { t.rows = append(t.rows, cells) }

func (t *table) print(w io.Writer) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	rows := t.rows
	if t.header != nil {
		rows = append([][]string{t.header}, rows...)
	}
	for _, row := range rows {
		for i, cell := range row {
			row[i] = printable(cell)
		}
		if _, err := fmt.Fprintln(tw, strings.Join(row, "\t")); err != nil {
			return err
		}
	}
	return tw.Flush()
}

// printTables prints tables with an empty line between them.
func printTables(w io.Writer, tables ...table) error {
	for i, t := range tables {
		if i > 0 {
			if _, err := fmt.Fprintln(w); err != nil {
				return err
			}
		}
		if err := t.print(w); err != nil {
			return err
		}
	}
	return nil
}

// show prints a result in the form asked for.
func show(cmd *cobra.Command, form *choice, m proto.Message, t table) error {
	if form.value == asJSON {
		return showJSON(cmd, m)
	}
	return t.print(cmd.OutOrStdout())
}

func showJSON(cmd *cobra.Command, m proto.Message) error {
	text, err := jsonOf(m, "")
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(cmd.OutOrStdout(), text)
	return err
}

// jsonOf returns a message in JSON; its lines after the first begin with prefix.
func jsonOf(m proto.Message, prefix string) (string, error) {
	b, err := protojson.MarshalOptions{EmitDefaultValues: true}.Marshal(m)
	if err != nil {
		return "", err
	}
	// protojson varies its white space on purpose; indenting takes that out.
	var out bytes.Buffer
	err = json.Indent(&out, b, prefix, "  ")
	return out.String(), err
}

// bare prints a token or key as it is, with a newline only where a person looks
// at it: what goes into a file or a variable is then the text and nothing else,
// as kumactl has it.
func bare(w io.Writer, text string) error {
	if isTerminal(w) {
		text += "\n"
	}
	_, err := io.WriteString(w, text)
	return err
}

// isTerminal takes any character device for a terminal but /dev/null, the only
// usual one among those that are none. Nobody is there to answer a question.
func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	if err != nil || info.Mode()&os.ModeCharDevice == 0 {
		return false
	}
	null, err := os.Stat(os.DevNull)
	return err != nil || !os.SameFile(info, null)
}

// printable quotes what would upset a table or a terminal: text comes from
// tokens and servers, and "-" stands for nothing.
func printable(s string) string {
	if s == "" {
		return "-"
	}
	if strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return strconv.Quote(s)
	}
	return s
}

func list(values []string) string { return strings.Join(values, ",") }

// listOrAll prints a list in which none means all.
func listOrAll(values []string) string {
	if len(values) == 0 {
		return "all"
	}
	return list(values)
}

func moment(t *timestamppb.Timestamp) string {
	if t == nil {
		return ""
	}
	return t.AsTime().Format(time.RFC3339)
}

// span prints a duration without the zeros that Go ends it with: "720h".
func span(d *durationpb.Duration) string {
	if d.AsDuration() == 0 {
		return ""
	}
	s := d.AsDuration().String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// optional returns nil for a flag that was not given, so that the server's
// default applies. Zero, given, is sent.
func optional(cmd *cobra.Command, flag string, d time.Duration) *durationpb.Duration {
	if !cmd.Flags().Changed(flag) {
		return nil
	}
	return durationpb.New(d)
}
