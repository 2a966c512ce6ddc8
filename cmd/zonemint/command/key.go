package command

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	pb "github.com/zonemint/zonemint/proto/zonemint/v1"
)

func newKey() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "key",
		Short: "Look at signing keys, rotate them, and end them",
		Long: `Look at signing keys, rotate them, and end them. A key is named by its keyset and
serial, or by its key ID (kid).

A key's life: it is creating until its backend has made it; published, verifiers
learn it; active, it signs; retiring, it only verifies what it has signed; removed.
It is distrusted when it was taken out of the JWK set before its tokens had
expired, abandoned when it never signed, failed when it could not be made.`,
	}
	cmd.AddCommand(newKeyList(), newKeyShow(), newKeyRotate(), newKeyActivate(), newKeyRetire(), newKeyDistrust(),
		newKeyDestroy(), newKeyImport(), newKeyAck(), newKeyReconcile())
	return cmd
}

func newKeyList() *cobra.Command {
	var conn connection
	var keyset string
	var inStates *choices
	var form *choice
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List signing keys and their states",
		Long: `List the signing keys of one keyset, or of all that you may see. JSON has the
public keys too. "zonemint key show" says more of one key.`,
		Example: `  zonemint key list
  zonemint key list --keyset zone --state published,active,retiring
  zonemint key list --keyset zone -o json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := conn.open(cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			resp, err := listKeys(cmd.Context(), c, keyset)
			if err != nil {
				return err
			}
			if inStates.given {
				resp.SigningKeys = slices.DeleteFunc(resp.GetSigningKeys(), func(k *pb.SigningKey) bool {
					return !slices.Contains(inStates.values, k.GetState())
				})
			}
			return show(cmd, form, resp, keyTable(resp.GetSigningKeys()))
		},
	}
	keysetFlag(cmd, &conn, &keyset, "the `name` of the keyset (default: all)")
	inStates = choicesFlag(cmd, "state", nil, states(), "only keys in these states")
	form = outputFlag(cmd, asTable, asJSON)
	connectionFlags(cmd, &conn)
	return cmd
}

func listKeys(ctx context.Context, c *client, keyset string) (*pb.ListSigningKeysResponse, error) {
	if keyset != "" {
		return c.keys.ListSigningKeys(ctx, &pb.ListSigningKeysRequest{Keyset: keyset})
	}
	keysets, err := c.keys.ListKeysets(ctx, &pb.ListKeysetsRequest{})
	if err != nil {
		return nil, err
	}
	all := &pb.ListSigningKeysResponse{}
	for _, k := range keysets.GetKeysets() {
		resp, err := c.keys.ListSigningKeys(ctx, &pb.ListSigningKeysRequest{Keyset: k.GetName()})
		if err != nil {
			return nil, err
		}
		all.SigningKeys = append(all.SigningKeys, resp.GetSigningKeys()...)
	}
	return all, nil
}

func keyTable(keys []*pb.SigningKey) table {
	t := table{header: []string{
		"KEYSET", "SERIAL", "STATE", "KID", "ALGORITHM", "BACKEND", "ROLE", "ACTIVATE AFTER", "ACTIVE SINCE", "LAST EXPIRY",
	}}
	for _, k := range keys {
		t.add(k.GetKeyset(), serialText(k.GetSerial()), k.GetState(), k.GetKid(), k.GetAlgorithm(), k.GetBackend(),
			k.GetRole(), moment(k.GetActivateAfter()), moment(k.GetActivatedAt()), moment(k.GetLastExpiry()))
	}
	return t
}

func serialText(serial int32) string { return strconv.Itoa(int(serial)) }

// keyName is a key as a command line names it.
type keyName struct {
	keyset string
	serial int32
}

// useKey ends the usage line of commands about one key.
const useKey = " KEYSET SERIAL|KID"

// keyArgs wants KEYSET SERIAL, or KID.
func keyArgs(cmd *cobra.Command, args []string) error {
	if len(args) == 0 || len(args) > 2 {
		return fmt.Errorf("name one key: %s zone 2, or by its key ID", cmd.CommandPath())
	}
	if len(args) == 2 {
		if _, err := parseSerial(args[1]); err != nil {
			return err
		}
	}
	return nil
}

func parseSerial(text string) (int32, error) {
	n, err := strconv.ParseInt(text, 10, 32)
	if err != nil || n < 1 {
		return 0, fmt.Errorf("%q is no serial, which is a number from 1 on; \"zonemint key list\" shows them", text)
	}
	return int32(n), nil
}

// findKey returns the key that arguments name. A key ID is looked for in all
// keysets that the caller may see.
func findKey(ctx context.Context, c *client, args []string) (keyName, error) {
	if len(args) == 2 {
		serial, err := parseSerial(args[1])
		return keyName{args[0], serial}, err
	}
	all, err := listKeys(ctx, c, "")
	if err != nil {
		return keyName{}, err
	}
	var found []keyName
	keyset := false
	for _, k := range all.GetSigningKeys() {
		if k.GetKid() == args[0] {
			found = append(found, keyName{k.GetKeyset(), k.GetSerial()})
		}
		keyset = keyset || k.GetKeyset() == args[0]
	}
	switch {
	case len(found) == 1:
		return found[0], nil
	case len(found) > 1:
		return keyName{}, usage{severalKeys(args[0], found)}
	case keyset:
		return keyName{}, usage{fmt.Errorf("%q is a keyset; name one of its keys by serial, \"zonemint key list --keyset %s\" shows them", args[0], args[0])}
	default:
		return keyName{}, fmt.Errorf("no keyset that you may see has a key with the ID %q; \"zonemint key list\" shows them", args[0])
	}
}

// about says which key a call did not find.
func (n keyName) about(err error) error {
	if connect.CodeOf(err) != connect.CodeNotFound {
		return err
	}
	return fmt.Errorf("no key with serial %d in keyset %q (%w); \"zonemint key list\" shows the keys", n.serial, n.keyset, err)
}

// severalKeys is about an imported key ID, which need not be unique.
func severalKeys(kid string, found []keyName) error {
	var names []string
	for _, k := range found {
		names = append(names, fmt.Sprintf("%s %d", k.keyset, k.serial))
	}
	return errors.New("there are several keys with the ID " + kid + "; name one as KEYSET SERIAL: " + strings.Join(names, ", "))
}
