package kubernetes

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/validation"
)

// Errors of calls match one of these, or none if the cluster found the request
// itself at fault. Their texts never hold what is in a Secret.
var (
	ErrNotFound    = errors.New("not found")
	ErrConflict    = errors.New("changed meanwhile")                // read it again
	ErrExists      = errors.New("there is one already")             // Create
	ErrDenied      = errors.New("the cluster refused")              // the credential or the right
	ErrUnavailable = errors.New("the cluster's API is unavailable") // or has too much to do; try again
)

// failed describes what a call failed with. Its secret is what was sent.
func failed(ctx context.Context, act string, sent Secret, err error) error {
	return fmt.Errorf("%s Secret %s/%s: %w", act, sent.Namespace, sent.Name, classified(ctx, sent, err))
}

// classified gives an error its class. That the caller has left is none.
func classified(ctx context.Context, sent Secret, err error) error {
	if errors.Is(ctx.Err(), context.Canceled) {
		return context.Canceled
	}
	var status apierrors.APIStatus
	if !errors.As(err, &status) {
		return local(err)
	}
	text := fmt.Sprintf("%s (HTTP %d)", sent.withhold(status.Status().Message), status.Status().Code)
	if class := classOf(err, int(status.Status().Code)); class != nil {
		return fmt.Errorf("%w: %s", class, text)
	}
	return errors.New(text)
}

// classOf returns nil for what is none of ours.
func classOf(err error, code int) error {
	switch {
	case apierrors.IsAlreadyExists(err): // a 409, too
		return ErrExists
	case code == http.StatusConflict:
		return ErrConflict
	case code == http.StatusNotFound:
		return ErrNotFound
	case code == http.StatusUnauthorized || code == http.StatusForbidden:
		return ErrDenied
	case code == http.StatusTooManyRequests || code >= http.StatusInternalServerError:
		return ErrUnavailable
	default:
		return nil
	}
}

// local is for what no server has answered.
func local(err error) error {
	if errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("%w: no answer within %s: %w", ErrUnavailable, requestTimeout, context.DeadlineExceeded)
	}
	if e, ok := errors.AsType[*url.Error](err); ok {
		return fmt.Errorf("%w: %w", ErrUnavailable, e)
	}
	return fmt.Errorf("%w: its answer cannot be read", ErrUnavailable) // the cause may quote it
}

// checkName refuses what would make another request than the one that is meant.
func checkName(namespace, name string) error {
	if len(validation.IsDNS1123Label(namespace)) > 0 {
		return fmt.Errorf("%q is not the name of a namespace", namespace)
	}
	if len(validation.IsDNS1123Subdomain(name)) > 0 {
		return fmt.Errorf("%q is not a name for a Secret: it may have a-z, 0-9, '-' and '.', and must begin and end with a letter or digit", name)
	}
	return nil
}

// withhold returns the text unless it has some of the data in it. A webhook of the
// cluster may quote what it refuses.
func (s Secret) withhold(text string) string {
	for _, value := range s.Data {
		v := strings.TrimSpace(string(value))
		if v != "" && (strings.Contains(text, v) || strings.Contains(text, base64.StdEncoding.EncodeToString(value))) {
			return "the reason is withheld because it has data of the Secret in it"
		}
	}
	return text
}
