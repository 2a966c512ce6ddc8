package command

import (
	"bytes"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/zonemint/zonemint/kuma"
	pb "github.com/zonemint/zonemint/proto/zonemint/v1"
	"github.com/zonemint/zonemint/service/legacy"
)

// The forms in which a file has the secret of a legacy key.
const (
	secretAuto         = "auto"
	secretGlobalSecret = "global-secret"
	secretPEM          = "pem"
	secretBase64       = "base64"
	secretRaw          = "raw"
	secretKubernetes   = "kubernetes" // written, and read as global-secret
)

// secretFile is a file with the secret of a legacy key.
type secretFile struct {
	path string
	form *choice
}

func (f *secretFile) flags(cmd *cobra.Command, name, usage string) {
	cmd.Flags().StringVar(&f.path, name, "", usage)
	f.form = choiceFlag(cmd, "format", "", secretAuto,
		[]string{secretAuto, secretGlobalSecret, secretPEM, secretBase64, secretRaw}, "the form of --"+name+"; PEM stands for the bytes in it")
}

// read returns the secret, and its serial if the file says it. With a serial it is
// that one of several in the file.
func (f *secretFile) read(cmd *cobra.Command, kind string, serial int32) ([]byte, int32, error) {
	text, err := readSecret(f.path, cmd.ErrOrStderr())
	if err != nil {
		return nil, 0, err
	}
	form := f.form.value
	if form == secretAuto {
		form = secretFormOf(text)
	}
	switch form {
	case secretGlobalSecret:
		text, serial, err = fromGlobalSecret(text, legacy.Kind(kind), serial)
	case secretPEM:
		block, _ := pem.Decode(text)
		if block == nil {
			return nil, 0, errors.New("there is no PEM in it")
		}
		text = block.Bytes
	case secretBase64:
		text, err = base64.StdEncoding.DecodeString(string(bytes.TrimSpace(text)))
		if err != nil {
			return nil, 0, errors.New("it is not in base64")
		}
	}
	if err != nil {
		return nil, 0, err
	}
	return text, serial, legacy.CheckSecret(text)
}

func secretFormOf(text []byte) string {
	_, err := base64.StdEncoding.DecodeString(string(bytes.TrimSpace(text)))
	switch {
	case bytes.Contains(text, []byte("GlobalSecret")) || bytes.Contains(text, []byte("global-secret")):
		return secretGlobalSecret
	case bytes.Contains(text, []byte("-----BEGIN")):
		return secretPEM
	case err == nil:
		return secretBase64
	default:
		return secretRaw
	}
}

// fromGlobalSecret returns the one secret in a file that is for a kind, or has the
// serial.
func fromGlobalSecret(text []byte, kind legacy.Kind, serial int32) ([]byte, int32, error) {
	secrets, err := kuma.ReadSecrets(bytes.NewReader(text))
	if err != nil {
		return nil, 0, err
	}
	secrets = slices.DeleteFunc(secrets, func(s kuma.Secret) bool {
		n, ok := legacySerialOf(kind, s.Ref)
		return !ok || serial != 0 && n != 0 && n != serial
	})
	switch len(secrets) {
	case 0:
		return nil, 0, fmt.Errorf("it has no GlobalSecret like %s", kind.SecretName(max(int(serial), 1)))
	case 1:
		n, _ := legacySerialOf(kind, secrets[0].Ref)
		return secrets[0].Data, max(n, serial), nil
	default:
		return nil, 0, errors.New("it has several; say which with --serial")
	}
}

// legacySerialOf returns the serial in the name of a secret for a kind, 0 if names of
// that kind have none.
func legacySerialOf(kind legacy.Kind, r kuma.Ref) (int32, bool) {
	if kind == legacy.ZoneIngress {
		return 0, r == kuma.Ref{Name: kind.SecretName(1)}
	}
	i := strings.LastIndex(r.Name, "-")
	n, err := strconv.ParseInt(r.Name[i+1:], 10, 32)
	return int32(n), err == nil && r == kuma.Ref{Name: kind.SecretName(int(n))}
}

// proveSecret checks that a token was made with a secret, and takes the serial from
// it. Without a token there is nothing to check.
func proveSecret(kind pb.LegacyKind, secret []byte, serial *int32, tokenFile string) error {
	if tokenFile == "" {
		return nil
	}
	raw, err := os.ReadFile(tokenFile)
	if err != nil {
		return err
	}
	u, err := legacy.Parse(legacy.Kind(legacyKindName(kind)), string(bytes.TrimSpace(raw)))
	if err != nil {
		return err
	}
	key, err := legacy.NewMAC(secret)
	if err != nil {
		return err
	}
	t, err := u.Verify(key)
	switch {
	case err != nil:
		return errors.New("the token was not made with this secret; see --format")
	case t.Serial != 0 && *serial != 0 && t.Serial != int(*serial):
		return fmt.Errorf("the token says serial %d, not %d", t.Serial, *serial)
	}
	*serial = max(*serial, int32(t.Serial))
	return nil
}
