package service

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	pb "github.com/zonemint/zonemint/proto/zonemint/v1"
	"github.com/zonemint/zonemint/store"
)

// policyFields says how each field that an update mask may name is taken over.
func policyFields() map[string]func(to, from *store.Keyset) {
	return map[string]func(to, from *store.Keyset){
		"algorithm":         func(to, from *store.Keyset) { to.Algorithm = from.Algorithm },
		"backend":           func(to, from *store.Keyset) { to.Backend = from.Backend },
		"distribution":      func(to, from *store.Keyset) { to.Distribution = from.Distribution },
		"max_valid_for":     func(to, from *store.Keyset) { to.Policy.MaxValidFor = from.Policy.MaxValidFor },
		"default_valid_for": func(to, from *store.Keyset) { to.Policy.DefaultValidFor = from.Policy.DefaultValidFor },
		"backdate":          func(to, from *store.Keyset) { to.Policy.Backdate = from.Policy.Backdate },
		"rotate_every":      func(to, from *store.Keyset) { to.Policy.RotateEvery = from.Policy.RotateEvery },
		"publish_ahead":     func(to, from *store.Keyset) { to.Policy.PublishAhead = from.Policy.PublishAhead },
		"consumers":         func(to, from *store.Keyset) { to.Policy.Consumers = from.Policy.Consumers },
		"allow_mesh_system": func(to, from *store.Keyset) { to.Policy.AllowMeshSystem = from.Policy.AllowMeshSystem },
		"standby":           func(to, from *store.Keyset) { to.Policy.Standby = from.Policy.Standby },
		"allow_weaker_standby": func(to, from *store.Keyset) {
			to.Policy.AllowWeakerStandby = from.Policy.AllowWeakerStandby
		},
	}
}

func (s keyService) UpdateKeyset(ctx context.Context, req *pb.UpdateKeysetRequest) (*pb.UpdateKeysetResponse, error) {
	ks, err := s.managed(ctx, req.GetKeyset().GetName())
	if err != nil {
		return nil, err
	}
	wish, err := keysetFromProto(req.GetKeyset())
	if err != nil {
		return nil, err
	}
	if wish.Backend == "" {
		wish.Backend = s.cfg.DefaultBackend
	}
	paths := req.GetUpdateMask().GetPaths()
	if err := mayWeaken(ctx, req.GetKeyset(), paths); err != nil {
		return nil, err
	}
	if len(paths) == 0 {
		return nil, &invalid{"update_mask", "names no field"}
	}
	l, err := s.store.ChangeKeys(ctx, ks.ID, actorOf(ctx), func(l *store.Lifecycle) (store.Change, error) {
		return s.policyChange(l.Keyset, wish, paths)
	})
	if err != nil {
		return nil, err
	}
	s.nudge()
	return &pb.UpdateKeysetResponse{Keyset: keysetToProto(l.Keyset)}, s.ring.Refresh(ctx)
}

// mayWeaken checks that the caller may give a keyset what takes a safeguard away.
// Without paths all of ks counts.
func mayWeaken(ctx context.Context, ks *pb.Keyset, paths []string) error {
	for path, wanted := range map[string]bool{
		"allow_mesh_system": ks.GetAllowMeshSystem(), "allow_weaker_standby": ks.GetAllowWeakerStandby(),
	} {
		if wanted && (paths == nil || slices.Contains(paths, path)) {
			if err := callerOf(ctx).MayWeaken(path); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s keyService) policyChange(ks, wish store.Keyset, paths []string) (store.Change, error) {
	fields := policyFields()
	for _, path := range paths {
		set, ok := fields[path]
		if !ok {
			return store.Change{}, &invalid{"update_mask", fmt.Sprintf("%q is not a field that can be changed", path)}
		}
		set(&ks, &wish)
	}
	if err := checkKeyset(ks); err != nil {
		return store.Change{}, err
	}
	if slices.ContainsFunc(paths, func(path string) bool { return slices.Contains(aboutBackends(), path) }) {
		if err := s.checkBackend(ks); err != nil {
			return store.Change{}, err
		}
	}
	return store.Change{Keyset: &ks, Action: "keyset.update", Detail: map[string]any{
		"fields": strings.Join(paths, ","), "algorithm": ks.Algorithm, "backend": ks.Backend,
		"distribution": ks.Distribution, "policy": ks.Policy,
	}}, nil
}

// aboutBackends are the fields that say where private keys live.
func aboutBackends() []string {
	return []string{"algorithm", "backend", "standby", "allow_weaker_standby"}
}

// managed returns a keyset that the caller may change.
func (s keyService) managed(ctx context.Context, name string) (store.Keyset, error) {
	if err := callerOf(ctx).MayManage(name); err != nil {
		return store.Keyset{}, err
	}
	return s.visible(ctx, name)
}

// visible returns a keyset that the caller may see, as the database has it.
func (s keyService) visible(ctx context.Context, name string) (store.Keyset, error) {
	if err := callerOf(ctx).MaySee(name); err != nil {
		return store.Keyset{}, err
	}
	ks, err := s.ring.Load().Keyset(name)
	if err != nil {
		return store.Keyset{}, err
	}
	return ks.Keyset, nil
}

func (s keyService) AcknowledgeKeys(ctx context.Context, req *pb.AcknowledgeKeysRequest) (*pb.AcknowledgeKeysResponse, error) {
	ks, err := s.visible(ctx, req.GetKeyset())
	if err != nil {
		return nil, err
	}
	l, err := s.store.Acknowledge(ctx, ks.ID, req.GetConsumer(), req.GetKids(), actorOf(ctx))
	if errors.Is(err, store.ErrNotFound) {
		return nil, &invalid{"consumer", fmt.Sprintf("keyset %q waits for %s; see `zonemint keyset update --consumer`",
			ks.Name, consumerNames(ks.Policy.Consumers))}
	}
	if err != nil {
		return nil, err
	}
	resp := &pb.AcknowledgeKeysResponse{}
	trusted := map[string]bool{}
	for _, k := range l.Keys {
		if !k.State.Verifies() {
			continue
		}
		trusted[k.KID] = true
		if !slices.Contains(req.GetKids(), k.KID) {
			resp.Missing = append(resp.Missing, k.KID)
		}
	}
	for _, kid := range req.GetKids() {
		if !trusted[kid] {
			resp.Surplus = append(resp.Surplus, kid)
		}
	}
	return resp, nil
}

func consumerNames(names []string) string {
	if len(names) == 0 {
		return "no consumers"
	}
	return "the consumers " + strings.Join(names, ", ")
}
