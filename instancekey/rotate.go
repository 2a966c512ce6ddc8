package instancekey

import (
	"errors"

	"github.com/tink-crypto/tink-go/v2/aead/aesgcm"
	"github.com/tink-crypto/tink-go/v2/key"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/mac/hmac"
)

var (
	errRandom   = errors.New("no key could be generated for the instance key")
	errWeak     = errors.New("holds a key of another kind or size than zonemint makes")
	errDisabled = errors.New("holds a key that is disabled")
)

// purpose is one of the two uses and the one kind of key that serves it.
type purpose func() (key.Parameters, error)

func forAEAD() (key.Parameters, error) {
	return aesgcm.NewParameters(aesgcm.ParametersOpts{
		KeySizeInBytes: 32, IVSizeInBytes: 12, TagSizeInBytes: 16, Variant: aesgcm.VariantTink,
	})
}

func forMAC() (key.Parameters, error) {
	return hmac.NewParameters(hmac.ParametersOpts{
		KeySizeInBytes: 32, TagSizeInBytes: 32, HashType: hmac.SHA256, Variant: hmac.VariantTink,
	})
}

// check refuses keysets that hold anything but enabled keys of this purpose. A
// keyset that was edited to hold a short key would work just as well.
func (p purpose) check(handle *keyset.Handle) error {
	want, err := p()
	if err != nil {
		return errRandom
	}
	for i := range handle.Len() {
		entry, err := handle.Entry(i)
		if err != nil {
			return errNotKeyset
		}
		if entry.KeyStatus() != keyset.Enabled {
			return errDisabled
		}
		if !entry.Key().Parameters().Equal(want) {
			return errWeak
		}
	}
	return nil
}

// Rotate returns a key that encrypts and authenticates with new keys and still
// reads what the old ones wrote. Where several replicas run, those that have
// not got it yet cannot read what it writes: give all of them the result of
// [Key.Stage] first and then that of [Key.Promote].
func (k *Key) Rotate() (*Key, error) {
	staged, err := k.Stage()
	if err != nil {
		return nil, err
	}
	return staged.Promote()
}

// Stage returns a key that can read what its newest keys will write once they
// are promoted, and goes on writing with the present ones.
func (k *Key) Stage() (*Key, error) {
	return k.edit(func(m *keyset.Manager, p purpose) (*keyset.Handle, error) {
		if _, err := add(m, p); err != nil {
			return nil, err
		}
		return m.Handle()
	})
}

// Promote returns a key that writes with the newest of its keys.
func (k *Key) Promote() (*Key, error) {
	return k.edit(func(m *keyset.Manager, _ purpose) (*keyset.Handle, error) {
		handle, err := m.Handle()
		if err != nil {
			return nil, err
		}
		newest, err := handle.Entry(handle.Len() - 1)
		if err != nil {
			return nil, err
		}
		if err := m.SetPrimary(newest.KeyID()); err != nil {
			return nil, err
		}
		return m.Handle()
	})
}

// Prune returns a key that has only the keys that write. What others wrote is
// lost with them, so all of it has to be written anew before.
func (k *Key) Prune() (*Key, error) {
	return k.edit(func(m *keyset.Manager, _ purpose) (*keyset.Handle, error) {
		handle, err := m.Handle()
		if err != nil {
			return nil, err
		}
		for i := range handle.Len() {
			entry, err := handle.Entry(i)
			if err != nil {
				return nil, err
			}
			if entry.IsPrimary() {
				continue
			}
			if err := m.Delete(entry.KeyID()); err != nil {
				return nil, err
			}
		}
		return m.Handle()
	})
}

func (k *Key) edit(f func(*keyset.Manager, purpose) (*keyset.Handle, error)) (*Key, error) {
	aeadKeys, err := f(keyset.NewManagerFromHandle(k.aeadKeys), forAEAD)
	if err != nil {
		return nil, errors.New("the instance key's encryption keys cannot be changed")
	}
	macKeys, err := f(keyset.NewManagerFromHandle(k.macKeys), forMAC)
	if err != nil {
		return nil, errors.New("the instance key's authentication keys cannot be changed")
	}
	return newKey(aeadKeys, macKeys)
}

// rotated adds a new key to m and makes it the primary one.
func rotated(m *keyset.Manager, p purpose) (*keyset.Handle, error) {
	id, err := add(m, p)
	if err != nil {
		return nil, errRandom
	}
	if err := m.SetPrimary(id); err != nil {
		return nil, errRandom
	}
	handle, err := m.Handle()
	if err != nil {
		return nil, errRandom
	}
	return handle, nil
}

func add(m *keyset.Manager, p purpose) (id uint32, err error) {
	params, err := p()
	if err != nil {
		return 0, err
	}
	return m.AddNewKeyFromParameters(params)
}
