package command

import (
	"fmt"
	"io"
	"strconv"

	"github.com/spf13/cobra"

	pb "github.com/zonemint/zonemint/proto/zonemint/v1"
)

func newKeyShow() *cobra.Command {
	var conn connection
	var publicKey, attestation bool
	var form *choice
	cmd := &cobra.Command{
		Use:   "show" + useKey,
		Short: "Show one key: its tokens, who has it, and what will become of it",
		Long: `Show one key: how many live tokens it has signed, which replicas and consumers
say that they have it, and what will become of it. With --public-key, its public
half in PEM and nothing else; with --attestation, what its backend proved of the
hardware that it lives in.`,
		Example: `  zonemint key show zone 2
  zonemint key show zone-2-2a22dca2 -o json
  zonemint key show zone 1 --public-key > zone-1.pub`,
		Args:              keyArgs,
		ValidArgsFunction: completeKeyArgs(&conn),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := conn.open(cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			name, err := findKey(cmd.Context(), c, args)
			if err != nil {
				return err
			}
			resp, err := c.keys.GetSigningKey(cmd.Context(), &pb.GetSigningKeyRequest{Keyset: name.keyset, Serial: name.serial})
			if err != nil {
				return name.about(err)
			}
			if attestation {
				return printAttestation(cmd, resp)
			}
			if publicKey {
				return printPublicKey(cmd, resp.GetSigningKey())
			}
			return showKey(cmd, form, resp)
		},
	}
	cmd.Flags().BoolVar(&publicKey, "public-key", false, "print the public key in PEM and nothing else")
	cmd.Flags().BoolVar(&attestation, "attestation", false, "print what the backend proved of where the private key lives, as JSON, and nothing else")
	form = outputFlag(cmd, asTable, asJSON)
	connectionFlags(cmd, &conn)
	cmd.MarkFlagsMutuallyExclusive("public-key", "output", "attestation")
	return cmd
}

func printPublicKey(cmd *cobra.Command, k *pb.SigningKey) error {
	if k.GetPublicKey() == "" {
		return fmt.Errorf("the public key of %s, serial %d, is not known: the key is %s", k.GetKeyset(), k.GetSerial(), k.GetState())
	}
	_, err := io.WriteString(cmd.OutOrStdout(), k.GetPublicKey())
	return err
}

func printAttestation(cmd *cobra.Command, resp *pb.GetSigningKeyResponse) error {
	k := resp.GetSigningKey()
	if len(resp.GetAttestation()) == 0 {
		return fmt.Errorf("there is no attestation of %s, serial %d: backend %q gave none when the key was made", k.GetKeyset(), k.GetSerial(), k.GetBackend())
	}
	_, err := cmd.OutOrStdout().Write(append(resp.GetAttestation(), '\n'))
	return err
}

func showKey(cmd *cobra.Command, form *choice, resp *pb.GetSigningKeyResponse) error {
	if form.value == asJSON {
		return showJSON(cmd, resp)
	}
	tables := []table{keyDetails(resp)}
	if len(resp.GetAcknowledgements()) > 0 {
		tables = append(tables, acknowledgementTable(resp.GetAcknowledgements()))
	}
	if len(resp.GetSteps()) > 0 {
		tables = append(tables, stepTable(resp.GetSteps()))
	}
	return printTables(cmd.OutOrStdout(), tables...)
}

// keyDetails lists what is known of a key; what has not happened is left out.
func keyDetails(resp *pb.GetSigningKeyResponse) table {
	k, t := resp.GetSigningKey(), table{}
	t.add("keyset", k.GetKeyset())
	t.add("serial", serialText(k.GetSerial()))
	t.add("kid", k.GetKid())
	t.add("state", k.GetState())
	t.add("live tokens", strconv.FormatInt(resp.GetLiveTokens(), 10))
	t.add("algorithm", k.GetAlgorithm())
	if k.GetImported() {
		t.add("imported", "it only verifies")
	} else {
		t.add("backend", k.GetBackend())
		t.add("role", k.GetRole())
	}
	known := func(name, value string) {
		if value != "" {
			t.add(name, value)
		}
	}
	known("adopted", k.GetAdopted())
	if len(resp.GetAttestation()) > 0 {
		t.add("attestation", "see --attestation")
	}
	known("created", moment(k.GetCreatedAt()))
	known("published", moment(k.GetPublishedAt()))
	known("activate after", moment(k.GetActivateAfter()))
	known("activated", moment(k.GetActivatedAt()))
	known("retired", moment(k.GetRetiredAt()))
	known("last expiry", moment(k.GetLastExpiry()))
	known("trusted until", moment(k.GetTrustedUntil()))
	known("removed", moment(k.GetRemovedAt()))
	known("destroyed", moment(k.GetDestroyedAt()))
	known("reason", k.GetReason())
	return t
}

func acknowledgementTable(acks []*pb.Acknowledgement) table {
	t := table{header: []string{"WHO", "KIND", "HAS THE KEY", "SAID SO"}}
	for _, a := range acks {
		kind, has := "consumer", "no"
		if a.GetReplica() {
			kind = "replica"
		}
		if a.GetHasKey() {
			has = "yes"
		}
		said := moment(a.GetAt())
		if said == "" {
			said = "never"
		}
		t.add(a.GetConsumer(), kind, has, said)
	}
	return t
}
