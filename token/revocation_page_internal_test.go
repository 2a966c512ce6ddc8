package token

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"math"
	"strconv"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

// goodPages are pages that are read, with what is read.
func goodPages() map[string]page {
	revoked := []revocation{{[]byte("0190"), 1763712000}, {[]byte("b"), 1}}
	return map[string]page{
		`{"keyset":"zone","epoch":"e","seq":1120,"reset":false,"more":true,"revoked":[{"jti":"0190","exp":1763712000},{"jti":"b","exp":1}],"lifted":["c"]}`: {"zone", "e", 1120, false, true, revoked, [][]byte{[]byte("c")}},
		`{"epoch":"e","seq":"1120","reset":true,"revoked":[{"jti":"0190","exp":"1763712000"},{"exp":"1","jti":"b"}]}`:                                       {"", "e", 1120, true, false, revoked, nil},
		`{"epoch":"e"}`: {epoch: "e"},
		" { \"epoch\" : \"e\" ,\r\n\t\"seq\" : 0 , \"revoked\" : [ ] , \"lifted\" : null } \n":                                       {epoch: "e"},
		`{"epoch":"e","seq":9223372036854775807,"new":{"seq":[1,"2",null,{"a":true}],"jti":-1.5e3},"x":"\"}","lifted":["\u0061\n"]}`: {epoch: "e", seq: math.MaxInt64, lifted: [][]byte{[]byte("a\n")}},
		`{"\u0065poch":"\ud83d\ude00","revoked":[{"jti":"ä","exp":5,"reason":null}]}`:                                                {epoch: "😀", revoked: []revocation{{[]byte("ä"), 5}}},
	}
}

// badPages are pages that are refused.
func badPages() []string {
	long := strings.Repeat("x", 257)
	return []string{
		``, ` `, `null`, `[]`, `"e"`, `1`, `{}`, `{`, `{"epoch":"e"`, `{"epoch":"e",}`, `{,"epoch":"e"}`, `{"epoch" "e"}`, `{epoch:"e"}`,
		`{"epoch":""}`, `{"epoch":null}`, `{"epoch":1}`, `{"epoch":"e"}{}`, `{"epoch":"e"}x`, "{\"epoch\":\"e\"}\x00", `{"epoch":"e"},`,
		`{"epoch":"e","epoch":"e"}`, `{"epoch":"e","seq":1,"seq":1}`, `{"epoch":"e","\u0065poch":"f"}`, `{"epoch":"` + long + `"}`, `{"epoch":"e","` + long + `":1}`,
		`{"epoch":"e","seq":-1}`, `{"epoch":"e","seq":1.0}`, `{"epoch":"e","seq":1e3}`, `{"epoch":"e","seq":01}`, `{"epoch":"e","seq":""}`, `{"epoch":"e","seq":"1}`,
		`{"epoch":"e","seq":"1`, `{"epoch":"e","seq":`, `{"epoch":"e","seq":null}`, `{"epoch":"e","seq":9223372036854775808}`, `{"epoch":"e","seq":true}`, `{"epoch":"e","seq":1 2}`,
		`{"epoch":"e","reset":"true"}`, `{"epoch":"e","reset":1}`, `{"epoch":"e","more":null}`, `{"epoch":"e","more":truex}`, `{"epoch":"e","more":tru}`,
		`{"epoch":"e","revoked":{}}`, `{"epoch":"e","revoked":["a"]}`, `{"epoch":"e","revoked":[{"jti":"a","exp":1},]}`, `{"epoch":"e","revoked":[{"jti":"a","exp":1}`,
		`{"epoch":"e","revoked":[{"jti":"a","exp":1} {"jti":"b","exp":1}]}`, `{"epoch":"e","revoked":[{"jti":"a"}]}`, `{"epoch":"e","revoked":[{"exp":1}]}`,
		`{"epoch":"e","revoked":[{"jti":"","exp":1}]}`, `{"epoch":"e","revoked":[{"jti":"a","exp":0}]}`, `{"epoch":"e","revoked":[{"jti":"a","exp":-1}]}`,
		`{"epoch":"e","revoked":[{"jti":1,"exp":1}]}`, `{"epoch":"e","revoked":[{"jti":"` + long + `","exp":1}]}`, `{"epoch":"e","revoked":[{"jti":"a","exp":1,"jti":"b"}]}`,
		`{"epoch":"e","revoked":[{"JTI":"a","EXP":1}]}`, `{"epoch":"e","lifted":"a"}`, `{"epoch":"e","lifted":[1]}`, `{"epoch":"e","lifted":["` + long + `"]}`, `{"epoch":"e","lifted":[""]}`,
		`{"epoch":"e","lifted":[null]}`, `{"epoch":"e","lifted":["a\x"]}`, `{"epoch":"e","lifted":["a\`, `{"epoch":"e","lifted":["a\"]}`, "{\"epoch\":\"e\",\"lifted\":[\"a\nb\"]}",
		"{\"epoch\":\"e\",\"lifted\":[\"\xff\"]}", "{\"epoch\":\"e\",\"lifted\":[\"a\\u0061\nb\"]}", `{"epoch":"e","new":}`, `{"epoch":"e","new":[}`, `{"epoch":"e","new":nope}`,
		"\ufeff{\"epoch\":\"e\"}", `{"epoch":"e"` + "\x00" + `}`,
	}
}

func samePage(a, b page) bool {
	same := a.keyset == b.keyset && a.epoch == b.epoch && a.seq == b.seq && a.reset == b.reset && a.more == b.more &&
		len(a.revoked) == len(b.revoked) && len(a.lifted) == len(b.lifted)
	for i := 0; same && i < len(a.revoked); i++ {
		same = bytes.Equal(a.revoked[i].jti, b.revoked[i].jti) && a.revoked[i].exp == b.revoked[i].exp
	}
	for i := 0; same && i < len(a.lifted); i++ {
		same = bytes.Equal(a.lifted[i], b.lifted[i])
	}
	return same
}

func TestParsePage(t *testing.T) {
	var got page // reused, as when following a feed
	for data, want := range goodPages() {
		if err := parsePage([]byte(data), &got); err != nil || !samePage(got, want) {
			t.Errorf("%s: got %+v, %v", data, got, err)
		}
	}
	for _, data := range badPages() {
		if err := parsePage([]byte(data), &got); !errors.Is(err, ErrFeedPage) || len(err.Error()) > 200 {
			t.Errorf("%.80s: got %+v, %v", data, got, err)
		}
	}
	limit := `{"epoch":"e","lifted":["` + strings.Repeat("x", 256) + `"]}`
	if err := parsePage([]byte(limit), &got); err != nil {
		t.Error(err)
	}
}

// What is accepted is JSON, and encoding/json reads the same.
func FuzzRevocationPage(f *testing.F) {
	for data := range goodPages() {
		f.Add([]byte(data))
	}
	for _, data := range badPages() {
		f.Add([]byte(data))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var got page
		if err := parsePage(data, &got); err != nil {
			if Reason(err) != "feed_page" || len(err.Error()) > 200 {
				t.Fatalf("unfit error: %v", err)
			}
			return
		}
		if want, err := pageByGo(data); err != nil || !samePage(got, want) {
			t.Fatalf("got %+v, want %+v, %v", got, want, err)
		}
		s := newRevocationSet()
		s.apply(&got, 0)
		for _, e := range got.revoked {
			if !s.contains(string(e.jti), 1) {
				t.Fatalf("%q is not revoked", e.jti)
			}
		}
	})
}

// pageByGo reads a page with encoding/json, which folds the case of names of
// structs but not of maps.
func pageByGo(data []byte) (page, error) {
	var m map[string]json.RawMessage
	if err := json.Unmarshal(data, &m); err != nil {
		return page{}, err
	}
	var p page
	var revoked []map[string]json.RawMessage
	var lifted []string
	for name, to := range map[string]any{"keyset": &p.keyset, "epoch": &p.epoch, "reset": &p.reset, "more": &p.more, "revoked": &revoked, "lifted": &lifted} {
		if value, ok := m[name]; ok {
			if err := json.Unmarshal(value, to); err != nil {
				return page{}, err
			}
		}
	}
	p.seq = integerByGo(m["seq"])
	for _, entry := range revoked {
		var id string
		if err := json.Unmarshal(entry["jti"], &id); err != nil {
			return page{}, err
		}
		p.revoked = append(p.revoked, revocation{[]byte(id), integerByGo(entry["exp"])})
	}
	for _, id := range lifted {
		p.lifted = append(p.lifted, []byte(id))
	}
	return p, nil
}

func integerByGo(value json.RawMessage) int64 {
	n, _ := strconv.ParseInt(strings.Trim(string(value), `"`), 10, 64)
	return n
}

func TestReadEnvelope(t *testing.T) {
	stream := appendEnvelope(nil, 0, []byte(`{"a":1}`))
	stream = appendEnvelope(stream, 0, nil)
	stream = appendEnvelope(stream, flagEndOfStream, []byte(`{}`))
	for _, slow := range []bool{false, true} {
		var r io.Reader = bytes.NewReader(stream)
		if slow {
			r = iotest.OneByteReader(r)
		}
		var buf bytes.Buffer
		for i, want := range []string{`{"a":1}`, ``, `{}`} {
			last, err := readEnvelope(r, &buf)
			if err != nil || buf.String() != want || last != (i == 2) {
				t.Errorf("envelope %d: got %q, %t, %v", i, buf.String(), last, err)
			}
		}
		if _, err := readEnvelope(r, &buf); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("at the end: got %v", err)
		}
	}
	for n := range 12 {
		var buf bytes.Buffer
		if _, err := readEnvelope(bytes.NewReader(stream[:n]), &buf); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("cut after %d bytes: got %v", n, err)
		}
	}
	for name, prefix := range map[string]string{"compressed": "\x01\x00\x00\x00\x01x", "compressed end": "\x03\x00\x00\x00\x01x", "flag": "\x04\x00\x00\x00\x01x", "too long": "\x00\x00\x80\x00\x01x"} {
		var buf bytes.Buffer
		if _, err := readEnvelope(strings.NewReader(prefix), &buf); !errors.Is(err, ErrFeedPage) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	var buf bytes.Buffer
	if _, err := readEnvelope(strings.NewReader("\x00\x00\x80\x00\x00x"), &buf); !errors.Is(err, io.ErrUnexpectedEOF) || buf.Cap() > 1<<16 {
		t.Errorf("got %v with a buffer of %d bytes for 1 that came", err, buf.Cap())
	}
}

func TestEndOfStream(t *testing.T) {
	for message, reason := range map[string]string{
		`{}`: "ok", `{"error":null}`: "ok", `{"metadata":{"a":["b"]}}`: "ok",
		`{"error":{}}`: "other", `{"error":{"code":"internal","message":"secret"}}`: "other", `{"error":{"code":"` + strings.Repeat("x", 1000) + `"}}`: "other",
		`{"error":{"code":"not_found"}}`: "feed_keyset", `{"error":{"code":"unauthenticated","message":"secret"}}`: "feed_credential", `{"error":{"code":"permission_denied"}}`: "feed_credential",
		``: "feed_page", `{`: "feed_page", `[]`: "feed_page", `{"error":"x"}`: "feed_page",
	} {
		err := endOfStream([]byte(message))
		if Reason(err) != reason || err != nil && (strings.Contains(err.Error(), "secret") || len(err.Error()) > 100) {
			t.Errorf("%.50s: got %v", message, err)
		}
	}
}

// An envelope that is read is one that can be written, and nothing behind it is
// touched.
func FuzzEnvelope(f *testing.F) {
	f.Add(appendEnvelope(nil, 0, []byte(`{"epoch":"e","seq":"1"}`)))
	f.Add(appendEnvelope(appendEnvelope(nil, 0, nil), flagEndOfStream, []byte(`{"error":{"code":"unavailable"}}`)))
	f.Add(appendEnvelope(nil, flagCompressed, []byte("x")))
	f.Add([]byte{0, 0xff, 0xff, 0xff, 0xff})
	f.Add([]byte{2, 0, 0, 0, 9, '{'})
	f.Fuzz(func(t *testing.T, data []byte) {
		r, buf := bytes.NewReader(data), bytes.Buffer{}
		for {
			before := len(data) - r.Len()
			last, err := readEnvelope(r, &buf)
			if err != nil {
				if !errors.Is(err, ErrFeedPage) && !errors.Is(err, io.ErrUnexpectedEOF) {
					t.Fatalf("unfit error: %v", err)
				}
				return
			}
			flags := byte(0)
			if last {
				flags = flagEndOfStream
				_ = endOfStream(buf.Bytes())
			}
			if got := data[before : len(data)-r.Len()]; !bytes.Equal(got, appendEnvelope(nil, flags, buf.Bytes())) {
				t.Fatalf("%x was read from %x", buf.Bytes(), got)
			}
		}
	})
}

func TestKeptUntil(t *testing.T) {
	for exp, want := range map[int64]uint32{1: 301, 1763712000: 1763712300, never - 301: never - 1, never - 300: never, never: never, math.MaxInt64: never} {
		if got := keptUntil(exp); got != want {
			t.Errorf("%d: got %d, want %d", exp, got, want)
		}
	}
}

// renderPage renders a page of n revocations, numbered from there.
func renderPage(dst []byte, from, n uint64, more bool) []byte {
	dst = append(dst, `{"keyset":"zone","epoch":"0190a5b0-0000-7000-8000-000000000000","seq":`...)
	dst = strconv.AppendUint(dst, from+n, 10)
	dst = append(dst, `,"reset":false,"more":`...)
	dst = strconv.AppendBool(dst, more)
	dst = append(dst, `,"revoked":[`...)
	for i := range n {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, `{"jti":"`...)
		dst = appendJTI(dst, from+i)
		dst = append(dst, `","exp":4000000000}`...)
	}
	return append(dst, "]}"...)
}

// BenchmarkRevocationLoad reads a feed of five million without a network, then
// changes of a thousand each.
func BenchmarkRevocationLoad(b *testing.B) {
	const n, pageSize = 5_000_000, 10_000
	now := time.Unix(1763712000, 0)
	var buf []byte
	var p page
	view := &feedView{}
	take := func(b *testing.B, from, size uint64, more bool) time.Duration {
		buf = renderPage(buf[:0], from, size, more)
		begin := time.Now()
		err := parsePage(buf, &p)
		if err == nil {
			view, err = view.take(&p, now, now)
		}
		if err != nil {
			b.Fatal(err)
		}
		return time.Since(begin)
	}
	b.Run("start", func(b *testing.B) {
		var spent time.Duration
		for b.Loop() {
			view = &feedView{}
			for from := uint64(0); from < n; from += pageSize {
				spent += take(b, from, pageSize, from+pageSize < n)
			}
		}
		b.ReportMetric(spent.Seconds()/float64(b.N), "s/load")
		b.ReportMetric(float64(b.N)*n/spent.Seconds(), "entries/s")
		b.ReportMetric(float64(view.set.bytes())/n, "bytes/entry")
	})
	b.Run("delta=1000", func(b *testing.B) {
		var spent time.Duration
		var deltas int
		for b.Loop() {
			spent += take(b, n+uint64(deltas)*1000, 1000, false)
			deltas++
		}
		b.ReportMetric(float64(spent.Microseconds())/float64(deltas), "µs/delta")
	})
}
