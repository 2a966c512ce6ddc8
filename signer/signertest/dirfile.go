package signertest

import (
	"cmp"
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/zonemint/zonemint/signer"
)

// stallFile exists while the directory is stalled.
const stallFile = "stalled"

// keyFile is how names of key files look. It keeps a reference from leading out
// of the directory, and half-written files, which end otherwise, from being read.
var keyFile = regexp.MustCompile(`^key-[a-z0-9]{26,64}\.json$`)

// dirKey is the content of a key file.
type dirKey struct {
	Label     string    `json:"label"`
	Keyset    string    `json:"keyset"`
	Serial    int       `json:"serial"`
	Algorithm string    `json:"algorithm"`
	Created   time.Time `json:"created"`
	PEM       string    `json:"pem"` // PKCS #8

	name string
}

func (k dirKey) labelled() signer.Labelled {
	return signer.Labelled{Label: k.Label, Ref: signer.Ref(k.name), Keyset: k.Keyset, Serial: k.Serial, CreatedAt: k.Created}
}

func (k dirKey) private() (crypto.Signer, error) {
	block, _ := pem.Decode([]byte(k.PEM))
	if block == nil {
		return nil, failf(signer.Corrupt, "key %q holds no PEM", k.name)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, failf(signer.Corrupt, "key %q: %v", k.name, err)
	}
	key, ok := parsed.(crypto.Signer)
	if !ok {
		return nil, failf(signer.Corrupt, "key %q is a %T", k.name, parsed)
	}
	return key, nil
}

// write makes a key file. Other processes see all of it or nothing, however
// this one ends, and once write has returned it survives the machine too.
func (d *Dir) write(spec signer.Spec, private crypto.Signer) (signer.Ref, error) {
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, err
	}
	k := dirKey{
		Label: spec.Label, Keyset: spec.Keyset, Serial: spec.Serial, Algorithm: spec.Algorithm.String(),
		Created: time.Now().UTC(),
		PEM:     string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})),
	}
	text, err := json.MarshalIndent(k, "", "\t")
	if err != nil {
		return nil, err
	}
	name := "key-" + strings.ToLower(rand.Text()) + ".json"
	temporary := filepath.Join(d.path, name+".tmp")
	if err := writeSynced(temporary, text); err != nil {
		return nil, err
	}
	if err := os.Rename(temporary, filepath.Join(d.path, name)); err != nil {
		return nil, err
	}
	return signer.Ref(name), d.sync()
}

func writeSynced(name string, text []byte) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	return errors.Join(err, f.Sync(), f.Close())
}

// sync makes the names of the directory durable.
func (d *Dir) sync() error {
	f, err := os.Open(d.path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// read returns the key in the file name.
func (d *Dir) read(name string) (dirKey, error) {
	if !keyFile.MatchString(name) {
		return dirKey{}, failf(signer.NotFound, "%.40q is no name of a key", name)
	}
	text, err := os.ReadFile(filepath.Join(d.path, name))
	if errors.Is(err, fs.ErrNotExist) {
		return dirKey{}, failf(signer.NotFound, "no key %q", name)
	}
	if err != nil {
		return dirKey{}, err
	}
	k := dirKey{name: name}
	if err := json.Unmarshal(text, &k); err != nil {
		return dirKey{}, failf(signer.Corrupt, "key %q: %v", name, err)
	}
	return k, nil
}

// readAll returns all keys, oldest first.
func (d *Dir) readAll() ([]dirKey, error) {
	entries, err := os.ReadDir(d.path)
	if err != nil {
		return nil, fmt.Errorf("signertest: %w", err)
	}
	var keys []dirKey
	for _, e := range entries {
		if !keyFile.MatchString(e.Name()) {
			continue
		}
		k, err := d.read(e.Name())
		if codeOf(err) == signer.NotFound {
			continue // destroyed since the directory was read
		}
		if err != nil {
			return nil, err
		}
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b dirKey) int {
		return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.name, b.name))
	})
	return keys, nil
}

func (d *Dir) remove(ref signer.Ref) error {
	err := os.Remove(filepath.Join(d.path, string(ref)))
	if errors.Is(err, fs.ErrNotExist) {
		return failf(signer.NotFound, "no key %q", ref)
	}
	if err != nil {
		return err
	}
	return d.sync()
}
