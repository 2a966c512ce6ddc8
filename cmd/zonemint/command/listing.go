package command

import (
	"context"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"
)

// maxPage is the most that the API lists at once.
const maxPage = 1000

// listing is a list that comes in pages and may be longer than memory.
type listing[T proto.Message] struct {
	field  string // that the API's answer has the items in
	header []string
	row    func(T) []string
	page   func(ctx context.Context, size int32, token string) (items []T, next string, err error)
	limit  int // 0: all
}

// show prints the list as it comes.
func (l listing[T]) show(cmd *cobra.Command, form *choice) error {
	p := pagePrinter(&tablePages{header: l.header})
	if form.value == asJSON {
		p = &jsonPages{field: l.field}
	}
	out, token, left := cmd.OutOrStdout(), "", l.limit
	for {
		size := maxPage
		if l.limit > 0 {
			size = min(left, maxPage)
		}
		items, next, err := l.page(cmd.Context(), int32(size), token)
		if err != nil {
			return err
		}
		if err := l.printPage(out, p, items); err != nil {
			return err
		}
		token, left = next, left-len(items)
		if full := l.limit > 0 && left <= 0; full || next == "" {
			if next != "" {
				say(cmd.ErrOrStderr(), "There are more; --limit 0 lists all.")
			}
			return p.end(out)
		}
	}
}

func (l listing[T]) printPage(out io.Writer, p pagePrinter, items []T) error {
	t, messages := table{}, make([]proto.Message, len(items))
	for i, item := range items {
		t.add(l.row(item)...)
		messages[i] = item
	}
	return p.page(out, messages, t)
}

// pagePrinter is a form that a long list is printed in.
type pagePrinter interface {
	page(out io.Writer, items []proto.Message, t table) error
	end(out io.Writer) error
}

// tablePages prints one table. Columns are as wide as the widest cell so far.
type tablePages struct {
	header []string
	widths []int
}

func (p *tablePages) page(out io.Writer, _ []proto.Message, t table) error {
	if p.widths == nil {
		t.rows = append([][]string{p.header}, t.rows...)
		p.widths = make([]int, len(p.header))
	}
	last := len(p.widths) - 1
	for _, row := range t.rows {
		for i, cell := range row {
			p.widths[i] = max(p.widths[i], utf8.RuneCountInString(printable(cell)))
		}
	}
	for _, row := range t.rows {
		var line strings.Builder
		for i, cell := range row[:last] {
			fmt.Fprintf(&line, "%-*s  ", p.widths[i], printable(cell))
		}
		if _, err := fmt.Fprintln(out, line.String()+printable(row[last])); err != nil {
			return err
		}
	}
	return nil
}

func (p *tablePages) end(io.Writer) error { return nil }

// jsonPages prints one answer of the API as if all had come at once. If a page
// fails the text stays incomplete, and nobody takes it for all.
type jsonPages struct {
	field string
	begun bool
}

func (p *jsonPages) page(out io.Writer, items []proto.Message, _ table) error {
	for i, item := range items {
		text, err := jsonOf(item, "    ")
		if err != nil {
			return err
		}
		lead := ",\n    "
		if !p.begun && i == 0 {
			lead = "{\n  \"" + p.field + "\": [\n    "
		}
		if _, err := io.WriteString(out, lead+text); err != nil {
			return err
		}
	}
	p.begun = p.begun || len(items) > 0
	return nil
}

func (p *jsonPages) end(out io.Writer) error {
	text := "\n  ]\n}\n"
	if !p.begun {
		text = "{\n  \"" + p.field + "\": []\n}\n"
	}
	_, err := io.WriteString(out, text)
	return err
}
