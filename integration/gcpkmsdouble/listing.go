package gcpkmsdouble

import (
	"cmp"
	"context"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"

	"cloud.google.com/go/kms/apiv1/kmspb"
)

// page returns one page of what has this name, and the token of the next.
func page[T any](s *Server, op, parent string, all []T, size int32, token string) ([]T, string, error) {
	encoded := func(at int) string {
		return base64.URLEncoding.EncodeToString(fmt.Appendf(nil, "%s %s %d", op, parent, at))
	}
	from := 0
	for token != "" && encoded(from) != token {
		if from++; from > len(all) {
			return nil, "", invalid("page_token is not one that a listing of %s gave", parent)
		}
	}
	if size < 0 {
		return nil, "", invalid("page_size is negative")
	}
	if size == 0 || int(size) > s.opts.MaxPage {
		size = int32(min(s.opts.MaxPage, 1<<20))
	}
	until := min(len(all), from+int(size))
	if until == len(all) {
		return all[from:], "", nil
	}
	return all[from:until], encoded(until), nil
}

// ListCryptoKeys implements the API. Keys are sorted by name.
func (s *Server) ListCryptoKeys(_ context.Context, req *kmspb.ListCryptoKeysRequest) (*kmspb.ListCryptoKeysResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := parse(ringPattern, req.GetParent()); !ok {
		return nil, invalid("%q is not the name of a KeyRing", req.GetParent())
	}
	if err := s.permitted("cloudkms.cryptoKeys.list", req.GetParent()); err != nil {
		return nil, err
	}
	ring, ok := s.rings[req.GetParent()]
	if !ok {
		return nil, notFound("KeyRing", req.GetParent())
	}
	var all []*kmspb.CryptoKey
	for _, k := range ring {
		if _, err := s.key(k.name); err == nil {
			all = append(all, k.proto())
		}
	}
	slices.SortFunc(all, func(a, b *kmspb.CryptoKey) int { return strings.Compare(a.GetName(), b.GetName()) })
	keys, next, err := page(s, "keys", req.GetParent(), all, req.GetPageSize(), req.GetPageToken())
	if err != nil {
		return nil, err
	}
	return &kmspb.ListCryptoKeysResponse{CryptoKeys: keys, NextPageToken: next, TotalSize: int32(len(all))}, nil
}

// ListCryptoKeyVersions implements the API. Attestations are in the full view only.
func (s *Server) ListCryptoKeyVersions(_ context.Context, req *kmspb.ListCryptoKeyVersionsRequest) (*kmspb.ListCryptoKeyVersionsResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.permitted("cloudkms.cryptoKeyVersions.list", req.GetParent()); err != nil {
		return nil, err
	}
	k, err := s.key(req.GetParent())
	if err != nil {
		return nil, err
	}
	full := req.GetView() == kmspb.CryptoKeyVersion_FULL
	all := make([]*kmspb.CryptoKeyVersion, len(k.versions))
	for i, v := range k.versions {
		all[i] = v.proto(s.opts.Now(), full)
	}
	slices.SortFunc(all, func(a, b *kmspb.CryptoKeyVersion) int {
		return cmp.Or(cmp.Compare(len(a.GetName()), len(b.GetName())), strings.Compare(a.GetName(), b.GetName()))
	})
	versions, next, err := page(s, "versions", req.GetParent(), all, req.GetPageSize(), req.GetPageToken())
	if err != nil {
		return nil, err
	}
	return &kmspb.ListCryptoKeyVersionsResponse{CryptoKeyVersions: versions, NextPageToken: next, TotalSize: int32(len(all))}, nil
}
