package kuma

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"unicode"

	"go.yaml.in/yaml/v3"
)

// Document is something for control planes: a part of their configuration, or
// secrets.
type Document struct {
	// Comments are lines about it, which its YAML begins with.
	Comments []string
	// Notes say what was left out and why. They are for the person who asked.
	Notes []string
	// Keys and Lists say how many public keys and lists of revoked tokens it has.
	Keys, Lists int

	items []any
	list  func(items []any) any // how JSON has several; nil if there is always one
}

// YAML returns the document with its comments, one after the other if there are
// several.
func (d Document) YAML() ([]byte, error) {
	var out bytes.Buffer
	for _, line := range d.Comments {
		out.WriteString("# " + oneLine(line) + "\n")
	}
	for i, item := range d.items {
		if i > 0 {
			out.WriteString("---\n")
		}
		text, err := encodeYAML(item)
		if err != nil {
			return nil, err
		}
		out.Write(text)
	}
	return out.Bytes(), nil
}

// oneLine keeps what a server calls its keys from ending a comment.
func oneLine(text string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, text)
}

// JSON returns the document as one value, without the comments.
func (d Document) JSON() ([]byte, error) {
	var value any
	switch {
	case d.list != nil:
		value = d.list(d.items)
	case len(d.items) == 1:
		value = d.items[0]
	}
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	err := enc.Encode(value)
	return out.Bytes(), err
}

func encodeYAML(v any) ([]byte, error) {
	var out bytes.Buffer
	enc := yaml.NewEncoder(&out)
	enc.SetIndent(2)
	err := errors.Join(enc.Encode(v), enc.Close())
	return out.Bytes(), err
}
