package awskmsdouble

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"time"
)

const contentType = "application/x-amz-json-1.1"

// Exception is an error as the service answers it.
type Exception struct {
	Type    string
	Message string
	Status  int // 400 if it is 0
}

func refuse(kind, format string, args ...any) *Exception {
	return &Exception{Type: kind, Message: fmt.Sprintf(format, args...)}
}

// invalid is a ValidationException, in the words that all AWS services have for it.
func invalid(value any, member, constraint string) *Exception {
	return refuse("ValidationException", "1 validation error detected: Value '%v' at '%s' failed to satisfy constraint: Member must %s", value, member, constraint)
}

func (s *Server) write(w http.ResponseWriter, f Fault, answer any, refused *Exception) {
	w.Header().Set("X-Amzn-Requestid", requestID())
	w.Header().Set("Content-Type", contentType)
	if refused != nil {
		status := refused.Status
		if status == 0 {
			status = http.StatusBadRequest
		}
		w.Header().Set("X-Amzn-Errortype", refused.Type)
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(map[string]string{"__type": refused.Type, "message": refused.Message})
		return
	}
	if answer == nil {
		return // operations without an output answer with nothing
	}
	text, err := json.Marshal(answer)
	if err == nil && f.Mangle != nil {
		var fields map[string]any
		if err = json.Unmarshal(text, &fields); err == nil {
			f.Mangle(fields)
			text, err = json.Marshal(fields)
		}
	}
	if err != nil {
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	_, _ = w.Write(text)
}

// decode reads a request strictly: names in their exact spelling, no others, and
// nothing after it.
func decode(body []byte, into any) *Exception {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(body, &fields); err != nil {
		return &Exception{Type: "SerializationException"}
	}
	known := map[string]bool{}
	t := reflect.TypeOf(into).Elem()
	for i := range t.NumField() {
		known[t.Field(i).Name] = true
	}
	for name := range fields {
		if !known[name] {
			return refuse("SerializationException", "there is no member %s", name)
		}
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return refuse("SerializationException", "%v", err)
	}
	return nil
}

// timestamp is seconds since 1970, as AWS JSON has times.
type timestamp time.Time

// MarshalJSON implements [json.Marshaler].
func (t timestamp) MarshalJSON() ([]byte, error) {
	return fmt.Appendf(nil, "%.3f", float64(time.Time(t).UnixMilli())/1000), nil
}

// page cuts a list that is sorted by name, from the one after the marker on.
func page[T any](all []T, name func(T) string, limit *int, marker *string, usual, most int) (part []T, next *string, _ *Exception) {
	n := usual
	if limit != nil {
		n = *limit
	}
	if n < 1 || n > most {
		return nil, nil, invalid(n, "limit", fmt.Sprintf("have value between 1 and %d", most))
	}
	after := ""
	if marker != nil {
		raw, err := base64.StdEncoding.DecodeString(*marker)
		text, ok := strings.CutPrefix(string(raw), "after ")
		if err != nil || !ok {
			return nil, nil, refuse("InvalidMarkerException", "Could not deserialize marker '%s'", *marker)
		}
		after = text
	}
	for i, one := range all {
		if name(one) <= after && marker != nil {
			continue
		}
		rest := all[i:]
		if len(rest) <= n {
			return rest, nil, nil
		}
		text := base64.StdEncoding.EncodeToString([]byte("after " + name(rest[n-1])))
		return rest[:n], &text, nil
	}
	return nil, nil, nil
}
