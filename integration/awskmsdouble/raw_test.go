package awskmsdouble_test

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"github.com/zonemint/zonemint/integration/awskmsdouble"
)

func start(tb testing.TB, o awskmsdouble.Options) *awskmsdouble.Server {
	tb.Helper()
	s, err := awskmsdouble.Start(o)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = s.Close() })
	return s
}

// raw is a request as AWS's own signer signs it, and what may be changed about that.
type raw struct {
	op, body            string
	service, region     string
	keyID, secret       string
	at                  time.Time
	before, after       func(*http.Request)
	method, contentType string
}

// request signs and does not send.
func (r raw) request(tb testing.TB, s *awskmsdouble.Server) *http.Request {
	tb.Helper()
	or := func(text, otherwise string) string {
		if text == "" {
			return otherwise
		}
		return text
	}
	req, err := http.NewRequestWithContext(tb.Context(), or(r.method, http.MethodPost), s.URL()+"/", strings.NewReader(r.body))
	if err != nil {
		tb.Fatal(err)
	}
	req.Header.Set("Content-Type", or(r.contentType, "application/x-amz-json-1.1"))
	req.Header.Set("X-Amz-Target", "TrentService."+r.op)
	if r.before != nil {
		r.before(req)
	}
	at := r.at
	if at.IsZero() {
		at = time.Now()
	}
	o := s.Options()
	sum := sha256.Sum256([]byte(r.body))
	err = v4.NewSigner().SignHTTP(tb.Context(), aws.Credentials{AccessKeyID: or(r.keyID, o.AccessKeyID), SecretAccessKey: or(r.secret, o.SecretAccessKey), SessionToken: o.SessionToken},
		req, hex.EncodeToString(sum[:]), or(r.service, "kms"), or(r.region, o.Region), at)
	if err != nil {
		tb.Fatal(err)
	}
	if r.after != nil {
		r.after(req)
	}
	return req
}

// answer is what comes back.
type answer struct {
	status  int
	kind    string // __type
	message string
	fields  map[string]any
	header  http.Header
}

func (r raw) send(tb testing.TB, s *awskmsdouble.Server) (answer, error) {
	tb.Helper()
	resp, err := http.DefaultClient.Do(r.request(tb, s))
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return answer{}, err
	}
	a := answer{status: resp.StatusCode, header: resp.Header, fields: map[string]any{}}
	if len(text) > 0 {
		if err := json.Unmarshal(text, &a.fields); err != nil {
			tb.Fatalf("%s: %q", err, text)
		}
	}
	a.kind, _ = a.fields["__type"].(string)
	a.message, _ = a.fields["message"].(string)
	return a, nil
}

// ask makes an ordinary request.
func ask(tb testing.TB, s *awskmsdouble.Server, op string, body any) answer {
	tb.Helper()
	text, ok := body.(string)
	if !ok {
		raw, err := json.Marshal(body)
		if err != nil {
			tb.Fatal(err)
		}
		text = string(raw)
	}
	a, err := raw{op: op, body: text}.send(tb, s)
	if err != nil {
		tb.Fatal(err)
	}
	return a
}

// ok is ask for what must not be refused.
func ok(tb testing.TB, s *awskmsdouble.Server, op string, body any) map[string]any {
	tb.Helper()
	a := ask(tb, s, op, body)
	if a.status != http.StatusOK {
		tb.Fatalf("%s: %d %s: %s", op, a.status, a.kind, a.message)
	}
	return a.fields
}

// refused is ask for what must be refused.
func refused(tb testing.TB, s *awskmsdouble.Server, op string, body any, kind string) answer {
	tb.Helper()
	a := ask(tb, s, op, body)
	if a.kind != kind || a.status != http.StatusBadRequest || a.header.Get("X-Amzn-Errortype") != kind || a.header.Get("X-Amzn-Requestid") == "" {
		tb.Errorf("%s %v: %d %q %q, want %s", op, body, a.status, a.kind, a.message, kind)
	}
	return a
}

type m = map[string]any

// with is a copy of body with another member.
func with(body m, name string, value any) m {
	c := maps.Clone(body)
	if c[name] = value; value == nil {
		delete(c, name)
	}
	return c
}

// newKey makes one and returns its ARN.
func newKey(tb testing.TB, s *awskmsdouble.Server, spec string) string {
	tb.Helper()
	made := ok(tb, s, "CreateKey", m{"KeySpec": spec, "KeyUsage": "SIGN_VERIFY"})
	return made["KeyMetadata"].(m)["Arn"].(string)
}
