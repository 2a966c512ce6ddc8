package store

import (
	"bytes"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"
)

// TestEncodingsCoverFields changes every field of every sealed row: one that was
// added and forgotten in the encoding is found here.
func TestEncodingsCoverFields(t *testing.T) {
	for _, c := range []struct {
		row       any
		encoding  func(any) []byte
		uncovered []string
	}{
		{&Keyset{}, func(r any) []byte { return r.(*Keyset).encoding().buf }, []string{"Policy", "MAC"}}, // PolicyText is covered
		{&SigningKey{}, func(r any) []byte { return r.(*SigningKey).encoding().buf }, []string{"MAC", "LastExpiry", "MakingUntil"}},
		{&APIToken{}, func(r any) []byte { return r.(*APIToken).encoding().buf }, []string{"MAC"}},
		{&LegacyKey{}, func(r any) []byte { return r.(*LegacyKey).encoding().buf }, []string{"MAC"}},
		{&LedgerBatch{}, func(r any) []byte { return r.(*LedgerBatch).encoding().buf }, []string{"Rows", "MAC", "Keys", "Callers"}},
		{&Issuance{}, func(r any) []byte { return (&LedgerBatch{Rows: []Issuance{*r.(*Issuance)}}).chainHash(nil) },
			[]string{"Writer", "Batch", "KeyID", "CallerToken"}},
	} {
		row := reflect.ValueOf(c.row).Elem()
		zero := c.encoding(c.row)
		for i := range row.NumField() {
			name := row.Type().Field(i).Name
			old := reflect.New(row.Field(i).Type()).Elem()
			change(t, row.Field(i))
			if got, want := !bytes.Equal(c.encoding(c.row), zero), !slices.Contains(c.uncovered, name); got != want {
				t.Errorf("%s.%s was changed; its encoding changed: %t, want %t", row.Type().Name(), name, got, want)
			}
			row.Field(i).Set(old)
		}
	}
}

// change sets a field that is zero to something else.
func change(t *testing.T, f reflect.Value) {
	t.Helper()
	switch f.Interface().(type) {
	case time.Time:
		f.Set(reflect.ValueOf(time.UnixMicro(0)))
		return
	case uuid.UUID:
		f.Set(reflect.ValueOf(uuid.Max))
		return
	}
	switch f.Kind() {
	case reflect.String:
		f.SetString("x")
	case reflect.Int, reflect.Int64:
		f.SetInt(1)
	case reflect.Bool:
		f.SetBool(true)
	case reflect.Slice:
		f.Set(reflect.MakeSlice(f.Type(), 1, 1))
	case reflect.Struct:
		change(t, f.Field(0))
	default:
		t.Fatalf("do not know how to change a %s", f.Type())
	}
}

// FuzzEncodings builds two rows each of two tables and of the ledger, with
// fields that are drawn from few values, so that a boundary between fields that
// the encoding does not mark would soon be crossed.
func FuzzEncodings(f *testing.F) {
	f.Add([]byte{}, []byte{0})
	f.Add([]byte{1, 2, 3, 4, 5, 6, 7, 8}, []byte{1, 2, 3, 4, 5, 6, 8, 7})
	f.Add([]byte("\x02\x01\x01\x01"), []byte("\x01\x02\x01\x01"))
	f.Add([]byte("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"), []byte("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab"))
	f.Fuzz(func(t *testing.T, a, b []byte) {
		var rows [2][]any
		var encodings [2][][]byte
		for i, source := range [][]byte{a, b} {
			d := draw(source)
			token, key, batch := d.token(), d.key(), &LedgerBatch{Rows: []Issuance{d.issuance(), d.issuance()}}
			rows[i] = []any{token, key, batch.Rows}
			encodings[i] = [][]byte{token.encoding().buf, key.encoding().buf, batch.chainHash(nil)}
		}
		for i := range rows[0] {
			if got, want := bytes.Equal(encodings[0][i], encodings[1][i]), reflect.DeepEqual(rows[0][i], rows[1][i]); got != want {
				t.Errorf("equal encodings: %t, equal rows: %t\n%+v\n%+v", got, want, rows[0][i], rows[1][i])
			}
		}
		for i, one := range encodings[0][:2] {
			for j, other := range encodings[1][:2] {
				if i != j && bytes.Equal(one, other) {
					t.Errorf("rows of different tables have the same encoding")
				}
			}
		}
	})
}

// draw makes values of what is left of it.
type draw []byte

func (d *draw) next(n int) int {
	if len(*d) == 0 {
		return 0
	}
	b := (*d)[0]
	*d = (*d)[1:]
	return int(b) % n
}

func (d *draw) text() string {
	return string([]byte("\x00\x00\x00\x01a\x00\x00")[d.next(4):][:d.next(4)])
}

func (d *draw) id() (id uuid.UUID) {
	id[15] = byte(d.next(3))
	return id
}

func (d *draw) time() time.Time {
	if d.next(2) == 0 {
		return time.Time{}
	}
	return time.UnixMicro(int64(d.next(3)))
}

func (d *draw) list() []string {
	list := make([]string, d.next(3))
	for i := range list {
		list[i] = d.text()
	}
	return list
}

func (d *draw) token() *APIToken {
	return &APIToken{
		ID: d.id(), Name: d.text(), Hash: []byte(d.text()), Roles: d.list(), Keysets: d.list(), Zones: d.list(), Scopes: d.list(),
		MaxValidFor: time.Duration(d.next(3)), CreatedBy: d.text(), CreatedAt: d.time(), ExpiresAt: d.time(), RevokedAt: d.time(),
		Version: int64(d.next(3)),
	}
}

func (d *draw) key() *SigningKey {
	return &SigningKey{
		ID: d.id(), KeysetID: d.id(), Serial: d.next(3), Role: Role(d.text()), State: State(d.text()), Algorithm: d.text(),
		Backend: d.text(), Label: d.text(), Ref: []byte(d.text()), KID: d.text(), Thumbprint: d.text(), PublicKey: []byte(d.text()),
		Imported: d.next(2) == 1, Reason: d.text(), CreatedAt: d.time(), PublishedAt: d.time(), ActivateAfter: d.time(),
		ActivatedAt: d.time(), RetiredAt: d.time(), RemovedAt: d.time(), DestroyedAt: d.time(), TrustedUntil: d.time(),
		Attestation: []byte(d.text()), Version: int64(d.next(3)),
	}
}

func (d *draw) issuance() Issuance {
	return Issuance{
		JTI: d.id(), KeysetID: d.id(), Serial: d.next(3), Subject: d.text(), Scopes: d.text(),
		IssuedAt: d.time(), ExpiresAt: d.time(), Caller: d.text(),
	}
}
