package command

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/zonemint/zonemint/proto/zonemint/v1"
	"github.com/zonemint/zonemint/service/legacy"
	"github.com/zonemint/zonemint/token"
)

// legacyUse is what the audit says of a zone's old tokens.
type legacyUse struct {
	Kind    string    `json:"kind"`
	Zone    string    `json:"zone"`
	Tokens  int       `json:"tokens"`
	Serials []int     `json:"serials"`
	Last    time.Time `json:"lastIssuedAt,omitzero"`
}

// migration is the way from old tokens to zone tokens.
type migration struct {
	Uses  []legacyUse `json:"uses"`
	Steps []string    `json:"steps"`
}

func newLegacyMigrate() *cobra.Command {
	var conn connection
	var zones []string
	var validFor time.Duration
	var form *choice
	cmd := &cobra.Command{
		Use:   "migrate",
		Short: "Show which zones have old tokens, and the steps to zone tokens; it changes nothing",
		Long: `Show which zones have old tokens, by what the audit says was issued here, and what to
do so that none needs them any more. It changes nothing.

Tokens that a control plane issued are in no audit here: name their zones with --zone.`,
		Example: `  zonemint legacy migrate --zone north,south`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			for _, zone := range zones {
				if !token.ValidZoneName(zone) {
					return usage{fmt.Errorf("--zone: %q is no name of a zone", zone)}
				}
			}
			c, err := conn.open(cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			m, err := migrationOf(cmd.Context(), c, zones, validFor)
			if err != nil {
				return err
			}
			if form.value == asJSON {
				enc := json.NewEncoder(cmd.OutOrStdout())
				enc.SetEscapeHTML(false)
				enc.SetIndent("", "  ")
				return enc.Encode(m)
			}
			return m.print(cmd.OutOrStdout())
		},
	}
	cmd.Flags().StringSliceVar(&zones, "zone", nil, "the `names` of more zones whose control planes have old tokens")
	cmd.Flags().DurationVar(&validFor, "valid-for", 720*time.Hour, "how long their zone tokens are to be valid")
	form = outputFlag(cmd, asTable, asJSON)
	connectionFlags(cmd, &conn)
	return cmd
}

func migrationOf(ctx context.Context, c *client, zones []string, validFor time.Duration) (migration, error) {
	uses, err := legacyUses(ctx, c)
	if err != nil {
		return migration{}, err
	}
	for _, zone := range zones {
		known := slices.ContainsFunc(uses, func(u legacyUse) bool { return u.Kind == string(legacy.ControlPlane) && u.Zone == zone })
		if !known {
			uses = append(uses, legacyUse{Kind: string(legacy.ControlPlane), Zone: zone, Serials: []int{}})
		}
	}
	keys, err := listLegacyKeys(ctx, c, legacyKinds())
	if err != nil && !isOff(err) {
		return migration{}, err
	}
	m := migration{Uses: uses, Steps: []string{}}
	for _, kind := range legacy.Kinds() {
		m.Steps = append(m.Steps, migrationSteps(kind, uses, keys.GetKeys(), validFor)...)
	}
	return m, nil
}

// legacyUses reads the whole audit of old tokens.
func legacyUses(ctx context.Context, c *client) ([]legacyUse, error) {
	found, page := map[string]*legacyUse{}, ""
	for {
		resp, err := c.audit.ListAuditEvents(ctx, &pb.ListAuditEventsRequest{ActionPrefix: "legacy.issue", PageSize: maxPage, PageToken: page})
		if err != nil {
			return nil, err
		}
		for _, e := range resp.GetEvents() { // newest first
			var d struct {
				Kind, Zone string
				Serial     int
			}
			if json.Unmarshal([]byte(e.GetDetail()), &d) != nil || !token.ValidZoneName(d.Zone) {
				return nil, fmt.Errorf("audit event %s has another detail than this version writes", e.GetId())
			}
			u := found[d.Kind+"/"+d.Zone]
			if u == nil {
				u = &legacyUse{Kind: d.Kind, Zone: d.Zone, Last: e.GetAt().AsTime()}
				found[d.Kind+"/"+d.Zone] = u
			}
			u.Tokens++
			if !slices.Contains(u.Serials, d.Serial) {
				u.Serials = append(u.Serials, d.Serial)
				slices.Sort(u.Serials)
			}
		}
		if page = resp.GetNextPageToken(); page == "" {
			break
		}
	}
	uses := []legacyUse{}
	for _, name := range slices.Sorted(maps.Keys(found)) {
		uses = append(uses, *found[name])
	}
	return uses, nil
}

// migrationSteps are what to do for a kind; nothing if it has neither zones nor keys.
func migrationSteps(kind legacy.Kind, uses []legacyUse, keys []*pb.LegacyKey, validFor time.Duration) []string {
	uses = slices.DeleteFunc(slices.Clone(uses), func(u legacyUse) bool { return u.Kind != string(kind) })
	keys = slices.DeleteFunc(slices.Clone(keys), func(k *pb.LegacyKey) bool {
		return legacyKindName(k.GetKind()) != string(kind) || k.GetState() == "removed"
	})
	if len(uses) == 0 && len(keys) == 0 {
		return nil
	}
	scope, first, use := "cp", "Let the global control plane trust the keys of zone tokens: `zonemint kuma export` prints its configuration. Restart it.",
		"Give it to the control plane of zone %s (KMESH_MULTIZONE_ZONE_KDS_AUTH_CP_TOKEN_PATH) and restart that; the global one logs \"Zone CP successfully authenticated\"."
	if kind == legacy.ZoneIngress {
		scope, first, use = "ingress", "Let the zone control planes trust the keys of zone tokens: `zonemint kuma export --format universal` prints them.",
			"Start the ingress of zone %s with it (--dataplane-token-file)."
	}
	steps := []string{first}
	for _, u := range uses {
		file := u.Zone + "-" + scope + ".token"
		steps = append(steps,
			fmt.Sprintf("zonemint generate zone-token --zone %s --scope %s --valid-for %s > %s", u.Zone, scope, span(durationpb.New(validFor)), file),
			fmt.Sprintf(use, u.Zone))
	}
	steps = append(steps, "Wait until no zone uses an old token: also those whose tokens a control plane issued, which the audit does not have.")
	slices.SortStableFunc(keys, func(a, b *pb.LegacyKey) int { return strings.Compare(a.GetState(), b.GetState()) * -1 }) // the active one last
	for _, k := range keys {
		force := ""
		if k.GetState() == "active" || len(keys) == 1 {
			force = " --force"
		}
		steps = append(steps,
			fmt.Sprintf("zonemint legacy key remove %s %d%s --reason 'all zones have zone tokens'", kind, k.GetSerial(), force),
			fmt.Sprintf("Delete the GlobalSecret %s on the global control plane.", k.GetSecretName()))
	}
	return append(steps, fmt.Sprintf("Take legacy_tokens.%s out of the server's configuration.", strings.ReplaceAll(string(kind), "-", "_")))
}

func (m migration) print(out io.Writer) error {
	if len(m.Steps) == 0 {
		_, err := fmt.Fprintln(out, "The audit has no old tokens, and there are no keys for them: nothing is to be done.")
		return err
	}
	if len(m.Uses) > 0 {
		t := table{header: []string{"KIND", "ZONE", "TOKENS", "SERIALS", "LAST ISSUED"}}
		for _, u := range m.Uses {
			last := ""
			if !u.Last.IsZero() {
				last = u.Last.UTC().Format(time.RFC3339)
			}
			serials := strings.Trim(strings.ReplaceAll(fmt.Sprint(u.Serials), " ", ","), "[]")
			t.add(u.Kind, u.Zone, strconv.Itoa(u.Tokens), serials, last)
		}
		if err := t.print(out); err != nil {
			return err
		}
		if _, err := fmt.Fprintln(out); err != nil {
			return err
		}
	}
	for i, step := range m.Steps {
		if _, err := fmt.Fprintf(out, "%2d. %s\n", i+1, step); err != nil {
			return err
		}
	}
	return nil
}
