package integration

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/fieldmaskpb"

	pb "github.com/zonemint/zonemint/proto/zonemint/v1"
)

// scenario is something that is asked of the keys of a keyset, in the course of
// which a replica dies.
type scenario struct {
	name string
	// bare: there is no keyset yet. Otherwise serial 1 signs and 2 is published.
	bare bool
	// tokens are issued before, and have to be good after.
	tokens bool
	// prepare brings the keyset to where act can be asked for.
	prepare func(t *testing.T, m *mortal, s doomed, c client)
	act     func(ctx context.Context, c client) error
	// deed is the event in the audit that says that act was done: whoever does
	// not find it there asks again, and whoever does must not have to.
	deed string
	want string // the states of the keys at last; alternatives are separated by |
	// points are those of acts, which have a before and an after; more are taken
	// as they are.
	points, more []string
}

func rotate(now bool) func(context.Context, client) error {
	return func(ctx context.Context, c client) error {
		_, err := c.keys.RotateKeyset(ctx, &pb.RotateKeysetRequest{Keyset: "zone", Now: now})
		return err
	}
}

func retire(serial int32, force bool) func(context.Context, client) error {
	return func(ctx context.Context, c client) error {
		_, err := c.keys.RetireSigningKey(ctx, &pb.RetireSigningKeyRequest{Keyset: "zone", Serial: serial, Force: force})
		return err
	}
}

func update(ks *pb.Keyset, field string) func(context.Context, client) error {
	ks.Name, ks.Profile = "zone", pb.Profile_PROFILE_ZONE
	return func(ctx context.Context, c client) error {
		_, err := c.keys.UpdateKeyset(ctx, &pb.UpdateKeysetRequest{Keyset: ks, UpdateMask: &fieldmaskpb.FieldMask{Paths: []string{field}}})
		return err
	}
}

func is(want string) func(string) bool {
	return func(states string) bool {
		for _, one := range strings.Split(want, "|") {
			if states == one {
				return true
			}
		}
		return false
	}
}

// The calls of the backend on the way of a key from its row to its publication.
func backendPoints() []string {
	return []string{
		"before:find", "after:find", "before:create", "early:create", "during:create", "after:create",
		"before:open", "after:open", "after:public", "before:probe", "after:probe",
	}
}

const rotated = "1 retiring, 2 active, 3 published"

// scenarios are all that changes who signs, and every point on the way of each.
func scenarios() []scenario {
	return []scenario{{
		name: "create", bare: true, deed: "keyset.create", want: "1 active, 2 published",
		act: func(ctx context.Context, c client) error {
			_, err := c.keys.CreateKeyset(ctx, &pb.CreateKeysetRequest{Keyset: &pb.Keyset{
				Name: "zone", Profile: pb.Profile_PROFILE_ZONE, Algorithm: "ES256",
			}})
			if connect.CodeOf(err) == connect.CodeAlreadyExists {
				return nil // the call before was given up, not the keyset
			}
			return err
		},
		points: []string{"keyset.create", "claim", "claim@2", "signing-key.published", "signing-key.published@2", "signing-key.active", "load"},
		more:   append(backendPoints(), "during:create@2", "after:create@2"),
	}, {
		name: "rotate", tokens: true, deed: "keyset.rotate", want: rotated, act: rotate(false),
		points: []string{
			"keyset.rotate", "signing-key.schedule", "signing-key.retiring", "signing-key.active", "signing-key.creating",
			"claim", "signing-key.published", "load", "heartbeat", "heartbeat@4",
		},
		more: backendPoints(),
	}, {
		name: "rotate now", tokens: true, deed: "keyset.rotate", want: rotated, act: rotate(true),
		points: []string{"keyset.rotate", "signing-key.retiring", "signing-key.active", "signing-key.creating", "claim", "signing-key.published"},
	}, {
		name: "remove", deed: "keyset.rotate", want: "1 removed, 2 active, 3 published", act: rotate(false),
		points: []string{"signing-key.removed"},
	}, {
		name: "change the algorithm", tokens: true, deed: "keyset.update", want: "1 active, 2 abandoned, 3 published",
		act:    update(&pb.Keyset{Algorithm: "RS256"}, "algorithm"),
		points: []string{"keyset.update", "signing-key.creating", "claim", "signing-key.published", "signing-key.abandoned"},
		more:   []string{"after:create"},
	}, {
		name: "retire the successor", tokens: true, deed: "signing-key.abandoned", want: "1 active, 2 abandoned, 3 published",
		act: retire(2, false), points: []string{"signing-key.abandoned", "signing-key.creating", "signing-key.published"},
		more: []string{"after:create"},
	}, {
		name: "retire the active key", tokens: true, deed: "signing-key.retiring", want: rotated,
		act: retire(1, true), points: []string{"signing-key.retiring", "signing-key.active", "signing-key.published"},
	}, giveUp(), {
		name: "distrust", deed: "signing-key.distrusted", want: "1 distrusted, 2 active, 3 published",
		act: func(ctx context.Context, c client) error {
			_, err := c.keys.DistrustSigningKey(ctx, &pb.DistrustSigningKeyRequest{Keyset: "zone", Serial: 1, Force: true})
			return err
		},
		points: []string{"signing-key.distrusted", "signing-key.active", "signing-key.creating", "signing-key.published"},
	}, undo(), acknowledge(), destroy()}
}

// giveUp gives up a key that is being made: its backend hangs.
func giveUp() scenario {
	return scenario{
		name: "give up a key", deed: "signing-key.failed", act: retire(3, false),
		want: "1 active, 2 abandoned, 3 failed, 4 published|1 active, 2 abandoned, 3 abandoned, 4 published",
		prepare: func(t *testing.T, m *mortal, s doomed, c client) {
			if err := os.WriteFile(filepath.Join(m.keys, "stalled"), nil, 0o600); err != nil {
				t.Fatal(err)
			}
			s.insist(t, c, retire(2, false))
			await(t, c, "the next key is begun", is("1 active, 2 abandoned, 3 creating"))
		},
		points: []string{"signing-key.failed", "signing-key.creating"},
	}
}

// undo lets a key sign again that has been replaced.
func undo() scenario {
	return scenario{
		name: "undo a rotation", tokens: true, deed: "signing-key.active",
		want: "1 active, 2 retiring, 3 published|1 active, 2 removed, 3 published",
		prepare: func(t *testing.T, _ *mortal, s doomed, c client) {
			s.insist(t, c, rotate(false))
			await(t, c, "the rotation is complete", is(rotated))
		},
		act: func(ctx context.Context, c client) error {
			_, err := c.keys.ActivateSigningKey(ctx, &pb.ActivateSigningKeyRequest{Keyset: "zone", Serial: 1})
			return err
		},
		points: []string{"signing-key.active", "signing-key.retiring"},
	}
}

// acknowledge lets a rotation go on that waits for a consumer.
func acknowledge() scenario {
	return scenario{
		name: "acknowledge", tokens: true, deed: "keyset.acknowledge", want: rotated,
		prepare: func(t *testing.T, _ *mortal, s doomed, c client) {
			s.insist(t, c, update(&pb.Keyset{Consumers: []string{"cp"}}, "consumers"))
			s.insist(t, c, rotate(false))
		},
		act: func(ctx context.Context, c client) error {
			resp, err := c.keys.ListSigningKeys(ctx, &pb.ListSigningKeysRequest{Keyset: "zone"})
			if err != nil {
				return err
			}
			req := &pb.AcknowledgeKeysRequest{Keyset: "zone", Consumer: "cp"}
			for _, k := range resp.GetSigningKeys() {
				req.Kids = append(req.Kids, k.GetKid())
			}
			_, err = c.keys.AcknowledgeKeys(ctx, req)
			return err
		},
		points: []string{"keyset.acknowledge", "signing-key.active", "signing-key.published"},
	}
}

// destroy destroys the private key of a serial that has ended.
func destroy() scenario {
	return scenario{
		name: "destroy", tokens: true, deed: "signing-key.destroyed", want: "1 active, 2 abandoned, 3 published",
		prepare: func(t *testing.T, _ *mortal, s doomed, c client) {
			s.insist(t, c, retire(2, false))
			await(t, c, "the next key is made", is("1 active, 2 abandoned, 3 published"))
		},
		act: func(ctx context.Context, c client) error {
			_, err := c.keys.DestroySigningKey(ctx, &pb.DestroySigningKeyRequest{Keyset: "zone", Serial: 2, Reason: "test"})
			return err
		},
		points: []string{"signing-key.destroy", "destroy", "signing-key.destroyed"},
	}
}

// death is one way for replicas to die: each one that comes back dies at the next
// point.
type death struct {
	scenario
	points []string
	nature
	postgres bool
}

func (d death) String() string {
	store, slow := "sqlite", ""
	if d.postgres {
		store = "postgres"
	}
	if d.visibleAfter > 0 {
		slow = ", late to be seen"
	}
	return fmt.Sprintf("%s/%s%s: %s", store, d.name, slow, strings.Join(d.points, " then "))
}

// The natures of the backend: one shows a key at once, the other after a time.
const (
	createTakes = 200 * time.Millisecond
	seenAfter   = 2 * time.Second
)

func promptly() nature { return nature{delay: createTakes} }
func lately() nature   { return nature{delay: createTakes, visibleAfter: seenAfter} }

// deaths returns every point of every scenario on both stores. Those on which keys
// are made come again with a backend that does not show them at once.
func deaths() []death {
	var all []death
	for _, s := range scenarios() {
		points := s.more
		for _, p := range s.points {
			points = append(points, "before:"+p, "after:"+p)
		}
		for _, p := range points {
			all = append(all, death{scenario: s, points: []string{p}, nature: promptly()})
			if s.name == "rotate" || s.name == "create" {
				all = append(all, death{scenario: s, points: []string{p}, nature: lately()})
			}
		}
		if s.name == "rotate" || s.name == "create" {
			for _, several := range again() {
				all = append(all, death{s, several, promptly(), false}, death{s, several, lately(), false})
			}
		}
	}
	for _, d := range all {
		d.postgres = true
		all = append(all, d)
	}
	return all
}

// again are deaths of those who are about to finish what somebody left who died.
func again() [][]string {
	return [][]string{
		{"after:create", "after:claim"},
		{"after:create", "after:found"},
		{"during:create", "before:open"},
		{"after:create", "before:signing-key.published"},
		{"before:create", "after:create"},
		{"early:create", "during:create", "after:found", "after:probe"},
		{"after:claim", "before:heartbeat", "after:create", "after:signing-key.published"},
	}
}

// fewDeaths are some of them, for every day.
func fewDeaths() []death {
	by := map[string]scenario{}
	for _, s := range scenarios() {
		by[s.name] = s
	}
	return []death{
		{by["rotate"], []string{"after:create"}, lately(), false},
		{by["rotate"], []string{"during:create"}, lately(), true},
		{by["rotate"], []string{"after:keyset.rotate"}, promptly(), false},
		{by["rotate"], []string{"before:signing-key.active"}, promptly(), true},
		{by["create"], []string{"after:claim"}, promptly(), false},
		{by["rotate now"], []string{"before:signing-key.published"}, promptly(), true},
	}
}
