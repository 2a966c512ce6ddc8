package store

import (
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestPolicy(t *testing.T) {
	p := Policy{MaxValidFor: Duration(720 * time.Hour), DefaultValidFor: Duration(time.Hour), Backdate: Duration(30 * time.Second)}
	text, err := p.encode()
	if err != nil {
		t.Fatal(err)
	}
	if want := `{"max_valid_for":"720h0m0s","default_valid_for":"1h0m0s","backdate":"30s"}`; text != want {
		t.Errorf("encoded %s, want %s", text, want)
	}
	if got, err := decodePolicy(text); err != nil || !reflect.DeepEqual(got, p) {
		t.Errorf("decoded %+v (%v), want %+v", got, err, p)
	}
}

func TestPolicyRefused(t *testing.T) {
	for text, want := range map[string]string{
		`{"max_valid_for":"1h","only_on_sundays":true}`: "unknown field",
		`{"max_valid_for":"1h"} {}`:                     "trailing data",
		`{"max_valid_for":"1h"`:                         "unexpected EOF",
		`{"max_valid_for":3600}`:                        "policy",
		`{"max_valid_for":"soon"}`:                      "invalid duration",
		`[]`:                                            "policy",
		``:                                              "EOF",
	} {
		if _, err := decodePolicy(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want an error that says %q", text, err, want)
		}
	}
}
