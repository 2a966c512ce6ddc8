package service

import (
	"mime"
	"strconv"
	"strings"
)

// qualities returns what a client accepts, by the values of an Accept or
// Accept-Encoding header (RFC 9110 sections 12.5.1 and 12.5.3): names in lower
// case, to how much it wants each, from 0, not at all, to 1. What cannot be read
// is left out.
func qualities(header []string) map[string]float64 {
	out := map[string]float64{}
	for _, v := range header {
		for part := range strings.SplitSeq(v, ",") {
			name, params, err := mime.ParseMediaType(part)
			if err != nil {
				continue
			}
			q := 1.0
			if text, ok := params["q"]; ok {
				if q, err = strconv.ParseFloat(text, 64); err != nil || !(q >= 0 && q <= 1) {
					continue
				}
			}
			out[name] = q
		}
	}
	return out
}

// quality returns how much a client wants something, by the first of its names,
// from the most specific to the least, that the client has said anything of.
func quality(accepted map[string]float64, names ...string) float64 {
	for _, name := range names {
		if q, ok := accepted[name]; ok {
			return q
		}
	}
	return 0
}

// wantsText says whether plain text is to be preferred to JSON. Of two that are
// wanted as much it is the one that was named.
func wantsText(accept []string) bool {
	accepted := qualities(accept)
	text := quality(accepted, "text/plain", "text/*", "*/*")
	other := quality(accepted, "application/json", "application/*", "*/*")
	if text == other {
		_, named := accepted["text/plain"]
		_, otherNamed := accepted["application/json"]
		return text > 0 && named && !otherNamed
	}
	return text > other
}

// acceptsGzip says whether an answer may be compressed.
func acceptsGzip(acceptEncoding []string) bool {
	return quality(qualities(acceptEncoding), "gzip", "x-gzip", "*") > 0
}
