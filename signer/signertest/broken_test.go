package signertest_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/zonemint/zonemint/signer"
	"github.com/zonemint/zonemint/signer/signertest"
)

// broken is a backend that keeps all its promises but those that a test
// replaces.
type broken struct {
	*signertest.Fake
	traits  func(*signer.Traits)
	create  func(context.Context, signer.Spec) (signer.Ref, error)
	find    func(context.Context, signer.Spec) ([]signer.Ref, error)
	list    func(context.Context, func(signer.Labelled) error) error
	open    func(context.Context, signer.Spec, signer.Ref) (signer.Handle, error)
	destroy func(context.Context, signer.Spec, signer.Ref) error
	sign    func(context.Context, signer.Handle, signer.Algorithm, []byte) ([]byte, error)
	code    func(error) signer.Code
	close   func() error
}

func (b *broken) Traits() signer.Traits {
	traits := b.Fake.Traits()
	if b.traits != nil {
		b.traits(&traits)
	}
	return traits
}

func (b *broken) Create(ctx context.Context, s signer.Spec) (signer.Ref, error) {
	if b.create != nil {
		return b.create(ctx, s)
	}
	return b.Fake.Create(ctx, s)
}

func (b *broken) Find(ctx context.Context, s signer.Spec) ([]signer.Ref, error) {
	if b.find != nil {
		return b.find(ctx, s)
	}
	return b.Fake.Find(ctx, s)
}

func (b *broken) List(ctx context.Context, each func(signer.Labelled) error) error {
	if b.list != nil {
		return b.list(ctx, each)
	}
	return b.Fake.List(ctx, each)
}

func (b *broken) Open(ctx context.Context, s signer.Spec, ref signer.Ref) (signer.Handle, error) {
	open := b.Fake.Open
	if b.open != nil {
		open = b.open
	}
	h, err := open(ctx, s, ref)
	if err != nil || b.sign == nil {
		return h, err
	}
	return brokenHandle{h, b}, nil
}

func (b *broken) Destroy(ctx context.Context, s signer.Spec, ref signer.Ref) error {
	if b.destroy != nil {
		return b.destroy(ctx, s, ref)
	}
	return b.Fake.Destroy(ctx, s, ref)
}

func (b *broken) Code(err error) signer.Code {
	if b.code != nil {
		return b.code(err)
	}
	return b.Fake.Code(err)
}

func (b *broken) Close() error {
	if b.close != nil {
		return b.close()
	}
	return b.Fake.Close()
}

type brokenHandle struct {
	signer.Handle
	b *broken
}

func (h brokenHandle) Sign(ctx context.Context, alg signer.Algorithm, in []byte) ([]byte, error) {
	return h.b.sign(ctx, h.Handle, alg, in)
}

// defect is one broken promise and the case of the suite that is there for it.
type defect struct {
	name  string
	fails string
	spoil func(*broken)             // applied to every connection
	tune  func(*signertest.Harness) // applied once
}

// TestRunCatches runs in bubbles: by a real clock a machine that pauses would pass
// for a window that was long enough.
func TestRunCatches(t *testing.T) {
	for _, d := range slices.Concat(signingDefects(), callDefects(), keepingDefects(), listingDefects()) {
		t.Run(d.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				failed := signertest.FailedCases(t, d.harness(t), d.fails)
				if len(failed) == 0 {
					t.Errorf("the case %q passes", d.fails)
				}
				for name, failures := range failed {
					t.Logf("%s: %q", name, failures)
				}
			})
		})
	}
	t.Run("nothing", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			if failed := signertest.FailedCases(t, defect{}.harness(t), ""); len(failed) != 0 {
				t.Errorf("an honest backend fails: %q", failed)
			}
		})
	})
}

func (d defect) harness(t *testing.T) signertest.Harness {
	fake := signertest.NewFake(t, signertest.FakeOptions{
		Algorithms:        []signer.Algorithm{signer.ES256},
		ConsistencyWindow: 20 * time.Millisecond,
		AllowClosedUse:    true,
	})
	h := signertest.Harness{
		Open: func(testing.TB) signer.Backend {
			b := &broken{Fake: fake.Connect()}
			if d.spoil != nil {
				d.spoil(b)
			}
			return b
		},
		UnknownRef:   signer.Ref("fake-key-0"),
		BreakKey:     func(_ testing.TB, ref signer.Ref) { fake.SwapKey(ref) },
		PlantForeign: func(tb testing.TB) signer.Ref { return plantForeign(tb, fake) },
		PlantNamed:   fake.Plant,
		UnknownName:  "fake-key-0",
		Stall:        func(testing.TB) func() { return stall(fake) },
	}
	if d.tune != nil {
		d.tune(&h)
	}
	return h
}

func signingDefects() []defect {
	return []defect{
		{name: "signs with another key", fails: "signs/ES256", spoil: func(b *broken) {
			b.sign = func(_ context.Context, _ signer.Handle, alg signer.Algorithm, in []byte) ([]byte, error) {
				other, err := ecdsa.GenerateKey(alg.Curve(), rand.Reader)
				if err != nil {
					return nil, err
				}
				return other.Sign(rand.Reader, in, alg.Opts())
			}
		}},
		{name: "signs other bytes", fails: "signs/ES256", spoil: func(b *broken) {
			b.sign = func(ctx context.Context, h signer.Handle, alg signer.Algorithm, in []byte) ([]byte, error) {
				return h.Sign(ctx, alg, bytes.Repeat([]byte{7}, len(in)))
			}
		}},
		{name: "mixes up concurrent calls", fails: "concurrent signatures verify", spoil: func(b *broken) {
			var mu sync.Mutex
			var shared []byte
			b.sign = func(ctx context.Context, h signer.Handle, alg signer.Algorithm, in []byte) ([]byte, error) {
				mu.Lock()
				shared = bytes.Clone(in)
				mu.Unlock()
				time.Sleep(time.Millisecond)
				mu.Lock()
				in = shared
				mu.Unlock()
				return h.Sign(ctx, alg, in)
			}
		}},
		{name: "is said to sign wrongly and does not", fails: "a wrong signature is noticed", tune: func(h *signertest.Harness) {
			h.BreakKey = func(testing.TB, signer.Ref) {}
		}},
	}
}

func callDefects() []defect {
	unsteady := time.Duration(0)
	return []defect{
		{name: "changes its traits", fails: "traits", spoil: func(b *broken) {
			b.traits = func(traits *signer.Traits) {
				unsteady++
				traits.ConsistencyWindow = unsteady
			}
		}},
		{name: "signs after its context has ended", fails: "calls with an ended context fail", spoil: func(b *broken) {
			b.sign = func(ctx context.Context, h signer.Handle, alg signer.Algorithm, in []byte) ([]byte, error) {
				return h.Sign(context.WithoutCancel(ctx), alg, in)
			}
		}},
		{name: "creates after its context has ended", fails: "calls with an ended context fail", spoil: func(b *broken) {
			b.create = func(ctx context.Context, s signer.Spec) (signer.Ref, error) {
				ref, err := b.Fake.Create(context.WithoutCancel(ctx), s)
				return ref, errors.Join(err, ctx.Err())
			}
		}},
		{name: "hangs until the store answers", fails: "cancelling ends a call that hangs", spoil: func(b *broken) {
			b.find = func(ctx context.Context, s signer.Spec) ([]signer.Ref, error) {
				return b.Fake.Find(context.WithoutCancel(ctx), s)
			}
		}},
		{name: "leaks a secret", fails: "an unknown reference is not found",
			tune: func(h *signertest.Harness) { h.Secrets = []string{"hunter2"} },
			spoil: func(b *broken) {
				b.open = func(ctx context.Context, s signer.Spec, ref signer.Ref) (signer.Handle, error) {
					h, err := b.Fake.Open(ctx, s, ref)
					if err != nil {
						return nil, fmt.Errorf("https://operator:hunter2@hsm.example: %w", err)
					}
					return h, nil
				}
			}},
		{name: "does not classify errors", fails: "an unknown reference is not found", spoil: func(b *broken) {
			b.code = func(error) signer.Code { return signer.Unknown }
		}},
		{name: "does not close", fails: "closed backends refuse", spoil: func(b *broken) {
			b.close = func() error { return nil }
		}},
		{name: "closes what others use", fails: "closed backends refuse", spoil: func(b *broken) {
			b.close = func() error {
				time.Sleep(b.Fake.Traits().ConsistencyWindow)
				for _, s := range b.Keys() {
					refs, _ := b.Fake.Find(context.Background(), s)
					for _, ref := range refs {
						_ = b.Fake.Destroy(context.Background(), s, ref)
					}
				}
				return b.Fake.Close()
			}
		}},
	}
}

func keepingDefects() []defect {
	return []defect{
		{name: "opens under any spec", fails: "a reference of another spec is refused", spoil: func(b *broken) {
			b.open = func(ctx context.Context, _ signer.Spec, ref signer.Ref) (signer.Handle, error) {
				return b.Fake.Open(ctx, b.Keys()[0], ref)
			}
		}},
		{name: "opens anything", fails: "what is no reference is refused", spoil: func(b *broken) {
			b.open = func(ctx context.Context, s signer.Spec, _ signer.Ref) (signer.Handle, error) {
				ref, err := b.Fake.Create(ctx, signer.Spec{Keyset: s.Keyset, Serial: s.Serial, Label: signer.NewLabel(), Algorithm: s.Algorithm})
				if err != nil {
					return nil, err
				}
				return b.Fake.Open(ctx, b.Keys()[len(b.Keys())-1], ref)
			}
		}},
		{name: "finds nothing", fails: "finds by label", spoil: func(b *broken) {
			b.find = func(context.Context, signer.Spec) ([]signer.Ref, error) { return nil, nil }
		}},
		{name: "finds everything", fails: "finds by label", spoil: func(b *broken) {
			b.find = func(ctx context.Context, _ signer.Spec) (all []signer.Ref, err error) {
				for _, s := range b.Keys() {
					refs, err := b.Fake.Find(ctx, s)
					if err != nil {
						return nil, err
					}
					all = append(all, refs...)
				}
				return all, nil
			}
		}},
		{name: "declares too short a window", fails: "finds a key whose creation went unanswered", spoil: func(b *broken) {
			b.traits = func(traits *signer.Traits) { traits.ConsistencyWindow = 0 }
		}},
		{name: "forgets the label", fails: "finds a key whose creation went unanswered", spoil: func(b *broken) {
			b.create = func(ctx context.Context, s signer.Spec) (signer.Ref, error) {
				s.Label = signer.NewLabel()
				return b.Fake.Create(ctx, s)
			}
		}},
		{name: "makes one key for all labels", fails: "two labels make two keys", spoil: func(b *broken) {
			var one signer.Ref
			b.create = func(ctx context.Context, s signer.Spec) (_ signer.Ref, err error) {
				if one == nil {
					one, err = b.Fake.Create(ctx, s)
				}
				return one, err
			}
			b.open = func(ctx context.Context, _ signer.Spec, ref signer.Ref) (signer.Handle, error) {
				return b.Fake.Open(ctx, b.Keys()[0], ref)
			}
		}},
		{name: "does not destroy", fails: "destroyed keys are gone", spoil: func(b *broken) {
			b.destroy = func(context.Context, signer.Spec, signer.Ref) error { return nil }
		}},
	}
}

func listingDefects() []defect {
	return []defect{
		{name: "lists nothing", fails: "lists what carries a label", spoil: func(b *broken) {
			b.list = func(context.Context, func(signer.Labelled) error) error { return nil }
		}},
		{name: "lists twice what is on two pages", fails: "lists what carries a label", spoil: func(b *broken) {
			b.list = func(ctx context.Context, each func(signer.Labelled) error) error {
				return errors.Join(b.Fake.List(ctx, each), b.Fake.List(ctx, each))
			}
		}},
		{name: "lists keys of others", fails: "lists what carries a label", spoil: func(b *broken) {
			b.list = func(ctx context.Context, each func(signer.Labelled) error) error {
				if err := each(signer.Labelled{Label: "zonemint-backup", Ref: signer.Ref("fake-key-1")}); err != nil {
					return err
				}
				return b.Fake.List(ctx, each)
			}
		}},
		{name: "lists one key's reference under all labels", fails: "lists what carries a label", spoil: func(b *broken) {
			b.list = func(ctx context.Context, each func(signer.Labelled) error) error {
				return b.Fake.List(ctx, func(l signer.Labelled) error {
					l.Ref = signer.Ref("fake-key-2")
					return each(l)
				})
			}
		}},
		{name: "lists a time of another unit", fails: "lists what carries a label", spoil: func(b *broken) {
			b.list = func(ctx context.Context, each func(signer.Labelled) error) error {
				return b.Fake.List(ctx, func(l signer.Labelled) error {
					l.CreatedAt = time.UnixMilli(l.CreatedAt.Unix())
					return each(l)
				})
			}
		}},
		{name: "lists on after an error", fails: "an error ends the listing", spoil: func(b *broken) {
			b.list = func(ctx context.Context, each func(signer.Labelled) error) (err error) {
				return errors.Join(b.Fake.List(ctx, func(l signer.Labelled) error {
					err = errors.Join(err, each(l))
					return nil
				}), err)
			}
		}},
		{name: "takes a caller's error for its end", fails: "an error ends the listing", spoil: func(b *broken) {
			b.list = func(ctx context.Context, each func(signer.Labelled) error) error {
				_ = b.Fake.List(ctx, each)
				return nil
			}
		}},
		{name: "lists after its context has ended", fails: "calls with an ended context fail", spoil: func(b *broken) {
			b.list = func(ctx context.Context, each func(signer.Labelled) error) error {
				return b.Fake.List(context.WithoutCancel(ctx), each)
			}
		}},
	}
}
