package token

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"unicode/utf8"
)

// Bounds on what a page holds, in bytes.
const (
	maxFeedJTI  = 256
	maxFeedName = 256 // also of an epoch
)

// page is a piece of a revocation feed. Its jtis are bytes of the message that
// was parsed, and end with it.
type page struct {
	keyset  string // "" if the page does not say
	epoch   string
	seq     int64
	reset   bool
	more    bool
	revoked []revocation
	lifted  [][]byte
}

type revocation struct {
	jti []byte
	exp int64 // Unix time in seconds, at least 1
}

// pageParser reads pages. It is written by hand because the first load can be
// some hundred megabytes, for which encoding/json takes several times as long, and
// because that folds the case of names, takes the last of two, and null for anything.
//
// Integers may be strings, as in the JSON of Protocol Buffers. What is zero may be
// left out, and a list that is null is empty. Names that are not known are
// skipped, so that pages can grow.
type pageParser struct {
	data []byte
	at   int
	page *page
	// The jti and exp of the revocation being read.
	entry revocation
}

// parsePage reads a page into p, of which it takes over the lists' memory.
// Errors match [ErrFeedPage] and hold nothing of the page.
func parsePage(data []byte, p *page) error {
	*p = page{revoked: p.revoked[:0], lifted: p.lifted[:0]}
	if !utf8.Valid(data) {
		return fmt.Errorf("%w: not UTF-8", ErrFeedPage)
	}
	r := pageParser{data: data, page: p}
	err := r.object(r.member)
	if err == nil && r.next() != 0 {
		err = errors.New("something follows the page")
	}
	if err == nil && p.epoch == "" {
		err = errors.New("there is no epoch")
	}
	if err != nil {
		return fmt.Errorf("%w: at byte %d: %w", ErrFeedPage, r.at, err)
	}
	return nil
}

// member reads a member of the page.
func (r *pageParser) member(name []byte) (err error) {
	switch string(name) {
	case "keyset":
		r.page.keyset, err = r.name()
	case "epoch":
		r.page.epoch, err = r.name()
	case "seq":
		r.page.seq, err = r.integer()
	case "reset":
		r.page.reset, err = r.boolean()
	case "more":
		r.page.more, err = r.boolean()
	case "revoked":
		err = r.list(r.revocation)
	case "lifted":
		err = r.list(func() error {
			id, err := r.jti()
			r.page.lifted = append(r.page.lifted, id)
			return err
		})
	default:
		err = r.skip()
	}
	return err
}

// revocation reads an element of revoked.
func (r *pageParser) revocation() error {
	r.entry = revocation{}
	if err := r.object(r.revocationMember); err != nil {
		return err
	}
	if r.entry.jti == nil || r.entry.exp == 0 {
		return errors.New("a revocation has no jti or no exp")
	}
	r.page.revoked = append(r.page.revoked, r.entry)
	return nil
}

func (r *pageParser) revocationMember(name []byte) (err error) {
	switch string(name) {
	case "jti":
		r.entry.jti, err = r.jti()
	case "exp":
		r.entry.exp, err = r.integer()
	default:
		err = r.skip()
	}
	return err
}

// knownBit is a bit for each name that is read, so that no object has it twice.
func knownBit(name []byte) uint {
	switch string(name) {
	case "keyset", "jti":
		return 1 << 0
	case "epoch", "exp":
		return 1 << 1
	case "seq":
		return 1 << 2
	case "reset":
		return 1 << 3
	case "more":
		return 1 << 4
	case "revoked":
		return 1 << 5
	case "lifted":
		return 1 << 6
	default:
		return 0
	}
}

// object calls f to read the value of every member.
func (r *pageParser) object(f func(name []byte) error) error {
	if !r.take('{') {
		return errors.New("not an object")
	}
	if r.take('}') {
		return nil
	}
	for seen := uint(0); ; {
		name, err := r.text()
		if err != nil {
			return err
		}
		bit := knownBit(name)
		if seen&bit != 0 {
			return errors.New("a name occurs twice")
		}
		seen |= bit
		if len(name) > maxFeedName || !r.take(':') {
			return errors.New("not a name")
		}
		if err := f(name); err != nil {
			return err
		}
		if r.take('}') {
			return nil
		}
		if !r.take(',') {
			return errors.New("not a member")
		}
	}
}

// list calls f to read every element.
func (r *pageParser) list(f func() error) error {
	if r.word("null") {
		return nil
	}
	if !r.take('[') {
		return errors.New("not a list")
	}
	if r.take(']') {
		return nil
	}
	for {
		if err := f(); err != nil {
			return err
		}
		if r.take(']') {
			return nil
		}
		if !r.take(',') {
			return errors.New("not an element")
		}
	}
}

func (r *pageParser) jti() ([]byte, error) {
	id, err := r.text()
	if err == nil && (len(id) == 0 || len(id) > maxFeedJTI) {
		err = fmt.Errorf("a jti has not 1 to %d bytes", maxFeedJTI)
	}
	return id, err
}

func (r *pageParser) name() (string, error) {
	text, err := r.text()
	if err == nil && len(text) > maxFeedName {
		err = fmt.Errorf("a text is longer than %d bytes", maxFeedName)
	}
	return string(text), err
}

// text reads a string.
func (r *pageParser) text() ([]byte, error) {
	if r.next() != '"' {
		return nil, errors.New("not a string")
	}
	r.at++
	begin := r.at
	for ; r.at < len(r.data); r.at++ {
		switch c := r.data[r.at]; {
		case c == '"':
			r.at++
			return r.data[begin : r.at-1], nil
		case c == '\\':
			return r.escapedText(begin)
		case c < ' ':
			return nil, errors.New("a string has a control character")
		}
	}
	return nil, errors.New("a string does not end")
}

// escapedText reads the string that begins there the way the claims of a token are
// read, so that the same jti is the same here and there.
func (r *pageParser) escapedText(begin int) ([]byte, error) {
	for ; r.at < len(r.data) && r.data[r.at] != '"'; r.at++ {
		if r.data[r.at] == '\\' {
			r.at++
		}
	}
	if r.at >= len(r.data) {
		return nil, errors.New("a string does not end")
	}
	r.at++
	s, err := readString(r.data[begin-1 : r.at])
	if err != nil {
		return nil, errors.New("not a string")
	}
	return []byte(s), nil
}

// integer reads a number that is whole and not negative.
func (r *pageParser) integer() (int64, error) {
	quoted := r.next() == '"'
	if quoted {
		r.at++
	}
	begin := r.at
	for r.at < len(r.data) && r.data[r.at] >= '0' && r.data[r.at] <= '9' {
		r.at++
	}
	digits := r.data[begin:r.at]
	n, err := strconv.ParseUint(string(digits), 10, 63)
	if err != nil || len(digits) > 1 && digits[0] == '0' {
		return 0, errors.New("not a whole number")
	}
	if quoted && (r.at == len(r.data) || r.data[r.at] != '"') {
		return 0, errors.New("not a whole number")
	}
	if quoted {
		r.at++
	}
	return int64(n), nil
}

func (r *pageParser) boolean() (bool, error) {
	switch {
	case r.word("true"):
		return true, nil
	case r.word("false"):
		return false, nil
	default:
		return false, errors.New("not true or false")
	}
}

// skip passes over any value.
func (r *pageParser) skip() error {
	r.next()
	d := json.NewDecoder(bytes.NewReader(r.data[r.at:]))
	var value json.RawMessage
	if err := d.Decode(&value); err != nil {
		return errors.New("not a value")
	}
	r.at += int(d.InputOffset())
	return nil
}

// word takes that word if it is next.
func (r *pageParser) word(w string) bool {
	r.next()
	if !bytes.HasPrefix(r.data[r.at:], []byte(w)) {
		return false
	}
	r.at += len(w)
	return true
}

// take takes that byte if it is next.
func (r *pageParser) take(c byte) bool {
	if r.next() != c {
		return false
	}
	r.at++
	return true
}

// next passes over white space and returns the byte behind it, 0 at the end.
func (r *pageParser) next() byte {
	for ; r.at < len(r.data); r.at++ {
		switch c := r.data[r.at]; c {
		case ' ', '\t', '\r', '\n':
		case 0:
			return 1 // not the end, and no byte that anything begins with
		default:
			return c
		}
	}
	return 0
}
