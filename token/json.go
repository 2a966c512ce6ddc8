package token

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"
	"unicode/utf8"
)

// members calls f for every member of the JSON object that data is, in order. It
// refuses what encoding/json lets pass: names that occur twice (RFC 7515 section
// 4, RFC 7519 section 4), bytes that are not UTF-8, and null for an object.
func members(data []byte, f func(name string, value []byte) error) error {
	if !utf8.Valid(data) {
		return fmt.Errorf("%w: not UTF-8", ErrMalformed)
	}
	// Valid covers the whole input, so that nothing can trail the object and
	// the reader below meets no syntax error.
	if trimmed := bytes.TrimLeft(data, " \t\r\n"); !bytes.HasPrefix(trimmed, []byte("{")) || !json.Valid(data) {
		return fmt.Errorf("%w: not a JSON object", ErrMalformed)
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	if _, err := dec.Token(); err != nil {
		return fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	seen := make(map[string]struct{}, 8)
	for dec.More() {
		name, value, err := member(dec)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrMalformed, err)
		}
		if _, dup := seen[name]; dup {
			return fmt.Errorf("%w: name %.20q occurs twice", ErrMalformed, name)
		}
		seen[name] = struct{}{}
		if err := f(name, value); err != nil {
			return err
		}
	}
	return nil
}

func member(dec *json.Decoder) (name string, value json.RawMessage, err error) {
	t, err := dec.Token()
	if err != nil {
		return "", nil, err
	}
	name, ok := t.(string)
	if !ok {
		return "", nil, errors.New("not a name")
	}
	err = dec.Decode(&value)
	return name, value, err
}

// readString reads a JSON string; null is none.
func readString(value []byte) (string, error) {
	if len(value) == 0 || value[0] != '"' {
		return "", errors.New("not a string")
	}
	var s string
	err := json.Unmarshal(value, &s)
	return s, err
}

// readStrings reads a JSON array of strings; null is an empty one.
func readStrings(value []byte) ([]string, error) {
	var items []json.RawMessage
	if err := json.Unmarshal(value, &items); err != nil {
		return nil, errors.New("not an array of strings")
	}
	var list []string
	for _, item := range items {
		s, err := readString(item)
		if err != nil {
			return nil, errors.New("not an array of strings")
		}
		list = append(list, s)
	}
	return list, nil
}

// maxDate is the last second of the year 9999.
const maxDate = 253402300799

// readDate reads a NumericDate (RFC 7519 section 2). Fractions and exponents,
// which the RFC allows, are refused: issuers of these tokens write neither, and
// implementations differ in how they round.
func readDate(value []byte) (time.Time, error) {
	n, err := strconv.ParseUint(string(value), 10, 64)
	if err != nil || n > maxDate {
		return time.Time{}, errors.New("not a whole number of seconds since 1970")
	}
	return time.Unix(int64(n), 0).UTC(), nil
}
