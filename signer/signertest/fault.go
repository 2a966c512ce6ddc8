package signertest

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/zonemint/zonemint/signer"
)

// Op names a call to a [Fake].
type Op string

// The calls.
const (
	OpCreate  Op = "create"
	OpFind    Op = "find"
	OpList    Op = "list"
	OpOpen    Op = "open"
	OpPublic  Op = "public"
	OpSign    Op = "sign"
	OpDestroy Op = "destroy"
	OpAdopt   Op = "adopt"
)

// Ops returns every call, so that a test can walk all of them.
func Ops() []Op { return []Op{OpCreate, OpFind, OpList, OpOpen, OpPublic, OpSign, OpDestroy, OpAdopt} }

// Fault says how calls go wrong. The two halves of a failure are Err alone,
// for a call that was refused, and Err with Apply, for one whose effect
// remains while its reply is lost.
type Fault struct {
	Op    Op
	Times int // how many calls it hits, 0 for all until [Fake.Heal]

	Delay  time.Duration   // wait this long first
	Until  <-chan struct{} // then wait until this is closed
	Err    error           // what the call fails with, see [Fail]; nil if it does not
	Apply  bool            // the call has its effect though it fails, also when its context ends first; OpList: it fails after the last key
	Mangle bool            // OpSign: the signature has one bit flipped
}

// Fail returns an error that a [Fake] classifies as code.
func Fail(code signer.Code) error { return &failure{code, "injected: " + code.String()} }

type failure struct {
	code signer.Code
	text string
}

func (f *failure) Error() string { return f.text }

func failf(code signer.Code, format string, args ...any) error {
	return &failure{code, fmt.Sprintf(format, args...)}
}

// codeOf classifies what Fail and failf made. What a file system says remains
// unknown.
func codeOf(err error) signer.Code {
	if failed, ok := errors.AsType[*failure](err); ok {
		return failed.code
	}
	return signer.Unknown
}

// Code implements [signer.Backend].
func (f *Fake) Code(err error) signer.Code { return codeOf(err) }

// outcomeUnknown says whether a caller that got err cannot know if the call
// had its effect.
func outcomeUnknown(err error) bool {
	failed, ok := errors.AsType[*failure](err)
	return !ok || failed.code == signer.Unknown || failed.code == signer.Unavailable
}

// wait is how long a call takes. It ends early with the context's error.
func (f Fault) wait(ctx context.Context, latency time.Duration) error {
	if d := latency + f.Delay; d > 0 {
		timer := time.NewTimer(d)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if f.Until != nil {
		select {
		case <-f.Until:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}
