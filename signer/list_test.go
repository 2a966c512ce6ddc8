package signer_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/zonemint/zonemint/signer"
	"github.com/zonemint/zonemint/signer/signertest"
)

// listing is a backend with its own way to list.
type listing struct {
	*signertest.Fake
	list func(each func(signer.Labelled) error) error
}

func (l listing) List(_ context.Context, each func(signer.Labelled) error) error { return l.list(each) }

// TestListStops: the caller gets its own error back, whatever the driver makes
// of it, and is not called again.
func TestListStops(t *testing.T) {
	errEnough := errors.New("enough")
	for name, list := range map[string]func(each func(signer.Labelled) error) error{
		"passes it on": func(each func(signer.Labelled) error) error { return each(signer.Labelled{}) },
		"wraps it": func(each func(signer.Labelled) error) error {
			return fmt.Errorf("page 1: %w", each(signer.Labelled{}))
		},
		"drops it": func(each func(signer.Labelled) error) error {
			_ = each(signer.Labelled{})
			return nil
		},
		"goes on": func(each func(signer.Labelled) error) error {
			_ = each(signer.Labelled{})
			return each(signer.Labelled{})
		},
	} {
		t.Run(name, func(t *testing.T) {
			calls := 0
			b := listing{signertest.NewFake(t, signertest.FakeOptions{}), list}
			err := signer.List(t.Context(), b, func(signer.Labelled) error {
				calls++
				return errEnough
			})
			if err != errEnough { //nolint:errorlint // as it is
				t.Errorf("got %v", err)
			}
			if calls != 1 {
				t.Errorf("called %d times", calls)
			}
		})
	}
}

// TestListFails: what the backend says is coded, also after keys were listed.
func TestListFails(t *testing.T) {
	fake := signertest.NewFake(t, signertest.FakeOptions{})
	if _, err := signer.Create(t.Context(), fake, spec(signer.ES256)); err != nil {
		t.Fatal(err)
	}
	for _, apply := range []bool{false, true} {
		fake.Inject(signertest.Fault{Op: signertest.OpList, Times: 1, Err: signertest.Fail(signer.Throttled), Apply: apply})
		listed := 0
		err := signer.List(t.Context(), fake, func(signer.Labelled) error {
			listed++
			return nil
		})
		if signer.CodeOf(err) != signer.Throttled || !strings.HasPrefix(err.Error(), "list: throttled") {
			t.Errorf("got %v", err)
		}
		if apply != (listed == 1) {
			t.Errorf("listed %d keys, apply is %v", listed, apply)
		}
	}
}

func TestIsLabel(t *testing.T) {
	random := strings.Repeat("a2", 13)
	for text, want := range map[string]bool{
		signer.NewLabel():                        true,
		"zonemint-" + random:                     true,
		"zonemint-" + random + "x":               true, // should texts of crypto/rand grow
		"zonemint-" + random[1:]:                 false,
		"zonemint-" + random + "-":               false,
		"zonemint-" + random[1:] + "é":           false,
		"zonemint-" + random[:20] + "-" + random: false,
		strings.ToUpper("zonemint-" + random):    false,
		"zonemint-backup":                        false,
		"zonemint-":                              false,
		"alias/zonemint-" + random:               false,
		random:                                   false,
		"":                                       false,
	} {
		if got := signer.IsLabel(text); got != want {
			t.Errorf("%q: got %v, want %v", text, got, want)
		}
	}
}
