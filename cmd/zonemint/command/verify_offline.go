package command

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/zonemint/zonemint/proto/zonemint/v1"
	"github.com/zonemint/zonemint/token"
)

// offline verifies without a server of ours, with the library that control
// planes use.
func (v verification) offline(cmd *cobra.Command, raw string) (*pb.VerifyTokenResponse, error) {
	keys, err := v.keys(cmd)
	if err != nil {
		return nil, err
	}
	warn(cmd.ErrOrStderr(), "whether the token was revoked is not known here")
	return verifyProfile(cmd.Context(), token.Profile(v.profile.value), raw, keys...)
}

// verifyProfile verifies a token of a profile.
func verifyProfile(ctx context.Context, p token.Profile, raw string, keys ...token.Key) (*pb.VerifyTokenResponse, error) {
	switch p {
	case token.ProfileZone:
		return verifyWith[token.ZoneClaims](ctx, raw, keys...)
	case token.ProfileDataplane:
		return verifyWith[token.DataplaneClaims](ctx, raw, keys...)
	case token.ProfileUser:
		return verifyWith[token.UserClaims](ctx, raw, keys...)
	default:
		return nil, fmt.Errorf("no such profile: %q", p)
	}
}

// keys returns the keys that --jwks or --public-key name.
func (v verification) keys(cmd *cobra.Command) ([]token.Key, error) {
	if v.publicKey != "" {
		key, err := readPublicKey(v.publicKey, v.kid, v.algorithm.value)
		if err != nil {
			return nil, usage{fmt.Errorf("--public-key: %w", err)}
		}
		return []token.Key{key}, nil
	}
	set, err := v.keySet(cmd.Context())
	if err != nil {
		return nil, err
	}
	for _, skipped := range set.Skipped() {
		warn(cmd.ErrOrStderr(), "key %q of the set cannot be used: %v", skipped.ID, skipped.Err)
	}
	return set.Keys(), nil
}

func (v verification) keySet(ctx context.Context) (*token.KeySet, error) {
	if !strings.HasPrefix(v.jwks, "https://") && !strings.HasPrefix(v.jwks, "http://") {
		data, err := os.ReadFile(v.jwks)
		if err != nil {
			return nil, usage{fmt.Errorf("--jwks: %w", err)}
		}
		set, err := token.ParseKeySet(data)
		if err != nil {
			return nil, usage{fmt.Errorf("--jwks: %s: %w", v.jwks, err)}
		}
		return set, nil
	}
	transport, err := v.conn.transport()
	if err != nil {
		return nil, usage{err}
	}
	set, err := token.FetchKeySet(ctx, v.jwks, token.RemoteOptions{Transport: transport, Timeout: v.conn.timeout})
	switch {
	case errors.Is(err, token.ErrKeysUnavailable) && !errors.Is(err, token.ErrKeySet):
		return nil, coded{fmt.Errorf("--jwks: %w", err), exitUnavailable}
	case err != nil:
		return nil, usage{fmt.Errorf("--jwks: %w", err)}
	}
	return set, nil
}

// readPublicKey reads a public key. Without an algorithm it is the first that
// fits, which for RSA is RS256; what the token says about it does not count.
func readPublicKey(path, kid, algorithm string) (token.Key, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return token.Key{}, err
	}
	names := token.Algorithms()
	if algorithm != "" {
		name, _, _ := strings.Cut(algorithm, "-") // the size is the key's own
		names = []string{name}
	}
	var first error
	for _, name := range names {
		key, err := token.ParseKey(kid, name, unwrapPEM(data))
		if err == nil {
			return key, nil
		}
		if first == nil {
			first = err
		}
	}
	return token.Key{}, fmt.Errorf("%s: %w", path, first)
}

// verifyWith verifies a token of the profile of C. An invalid token is an
// answer, not an error.
func verifyWith[C token.Claims](ctx context.Context, raw string, keys ...token.Key) (*pb.VerifyTokenResponse, error) {
	set, err := token.NewKeySet(keys...)
	if err != nil {
		return nil, err
	}
	verifier, err := token.NewVerifier[C](set, token.Options{})
	if err != nil {
		return nil, err
	}
	resp := &pb.VerifyTokenResponse{}
	verified, err := verifier.Verify(ctx, raw)
	if err != nil {
		resp.Reason, resp.Detail = token.Reason(err), err.Error()
		return resp, nil
	}
	resp.Valid, resp.Kid, resp.Claims = true, verified.Header.KeyID, &structpb.Struct{}
	if err := resp.Claims.UnmarshalJSON(verified.Claims.AppendJSON(nil)); err != nil {
		return nil, fmt.Errorf("describing claims: %w", err)
	}
	resp.ExpiresAt = &timestamppb.Timestamp{Seconds: int64(resp.Claims.GetFields()["exp"].GetNumberValue())}
	return resp, nil
}
