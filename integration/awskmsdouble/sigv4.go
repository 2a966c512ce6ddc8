package awskmsdouble

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	sigAlgorithm = "AWS4-HMAC-SHA256"
	amzDate      = "20060102T150405Z"
	maxSkew      = 5 * time.Minute
)

// authorization is what the header of that name says.
type authorization struct {
	accessKey, date, region, service, terminator string
	signed                                       []string
	signature                                    string
}

// authenticate checks a request's signature, as "Create a signed AWS API request"
// makes it. Refusals quote the canonical request, as the service does.
func (s *Server) authenticate(r *http.Request, body []byte) *Exception {
	a, e := parseAuthorization(r.Header.Get("Authorization"))
	if e != nil {
		return e
	}
	at, err := time.Parse(amzDate, r.Header.Get("X-Amz-Date"))
	if err != nil {
		return refuse("IncompleteSignatureException", "Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header. Authorization=%s", r.Header.Get("Authorization"))
	}
	if a.accessKey != s.opts.AccessKeyID || r.Header.Get("X-Amz-Security-Token") != s.opts.SessionToken {
		return refuse("UnrecognizedClientException", "The security token included in the request is invalid.")
	}
	if e := s.checkScope(a, at); e != nil {
		return e
	}
	if missing := unsigned(r, a.signed); missing != "" {
		return refuse("InvalidSignatureException", "'%s' must be a 'SignedHeader' in the AWS Authorization.", missing)
	}
	canonical := canonicalRequest(r, a.signed, body)
	toSign := strings.Join([]string{sigAlgorithm, at.Format(amzDate), strings.Join([]string{a.date, a.region, a.service, a.terminator}, "/"), hash(canonical)}, "\n")
	key := []byte("AWS4" + s.opts.SecretAccessKey)
	for _, part := range []string{a.date, a.region, a.service, a.terminator, toSign} {
		key = mac(key, part)
	}
	if !hmac.Equal([]byte(hex.EncodeToString(key)), []byte(a.signature)) {
		return refuse("InvalidSignatureException", "The request signature we calculated does not match the signature you provided. "+
			"Check your AWS Secret Access Key and signing method. Consult the service documentation for details.\n\n"+
			"The Canonical String for this request should have been\n'%s'\n\nThe String-to-Sign should have been\n'%s'\n", canonical, toSign)
	}
	return nil
}

func parseAuthorization(header string) (a authorization, _ *Exception) {
	if header == "" {
		return a, refuse("MissingAuthenticationTokenException", "Missing Authentication Token")
	}
	rest, ok := strings.CutPrefix(header, sigAlgorithm+" ")
	fields := map[string]string{}
	for part := range strings.SplitSeq(rest, ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(part), "=")
		fields[name] = value
	}
	scope := strings.Split(fields["Credential"], "/")
	if !ok || len(fields) != 3 || len(scope) != 5 || fields["SignedHeaders"] == "" || fields["Signature"] == "" {
		return a, refuse("IncompleteSignatureException", "Authorization header requires 'Credential', 'SignedHeaders' and 'Signature' parameters. Authorization=%s", header)
	}
	return authorization{scope[0], scope[1], scope[2], scope[3], scope[4], strings.Split(fields["SignedHeaders"], ";"), fields["Signature"]}, nil
}

func (s *Server) checkScope(a authorization, at time.Time) *Exception {
	now := s.opts.Now().UTC()
	switch {
	case a.region != s.opts.Region:
		return refuse("InvalidSignatureException", "Credential should be scoped to a valid region. ")
	case a.service != "kms":
		return refuse("InvalidSignatureException", "Credential should be scoped to correct service: 'kms'. ")
	case a.terminator != "aws4_request":
		return refuse("InvalidSignatureException", "Credential should be scoped with a valid terminator: 'aws4_request'. ")
	case a.date != at.Format("20060102"):
		return refuse("InvalidSignatureException", "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP")
	case now.Sub(at) > maxSkew:
		return refuse("InvalidSignatureException", "Signature expired: %s is now earlier than %s (%s - 5 min.)", at.Format(amzDate), now.Add(-maxSkew).Format(amzDate), now.Format(amzDate))
	case at.Sub(now) > maxSkew:
		return refuse("InvalidSignatureException", "Signature not yet current: %s is still later than %s (%s + 5 min.)", at.Format(amzDate), now.Add(maxSkew).Format(amzDate), now.Format(amzDate))
	}
	return nil
}

// unsigned returns a header that has to be signed and is not.
func unsigned(r *http.Request, signed []string) string {
	must := []string{"host"}
	for name := range r.Header {
		if lower := strings.ToLower(name); strings.HasPrefix(lower, "x-amz-") || lower == "content-type" {
			must = append(must, lower)
		}
	}
	for _, name := range must {
		if !slices.Contains(signed, name) {
			return name
		}
	}
	return ""
}

func canonicalRequest(r *http.Request, signed []string, body []byte) string {
	var headers strings.Builder
	for _, name := range signed {
		value := strings.Join(r.Header.Values(name), ",")
		switch name {
		case "host":
			value = r.Host
		case "content-length":
			value = strconv.FormatInt(r.ContentLength, 10)
		}
		fmt.Fprintf(&headers, "%s:%s\n", name, strings.Join(strings.Fields(value), " "))
	}
	return strings.Join([]string{r.Method, r.URL.EscapedPath(), r.URL.Query().Encode(), headers.String(), strings.Join(signed, ";"), hash(string(body))}, "\n")
}

func hash(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

func mac(key []byte, text string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(text))
	return h.Sum(nil)
}
