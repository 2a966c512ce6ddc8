package service

import (
	"bufio"
	"context"
	"io"
	"log/slog"
	"net/http"
	"strings"

	"github.com/zonemint/zonemint/service/caller"
	"github.com/zonemint/zonemint/service/keyring"
	"github.com/zonemint/zonemint/store"
)

// listPage is how many revocations are read at once for a list.
const listPage = 5000

// serveList answers with all jtis that are revoked and have not expired, in the
// form of Kuma's revocation secrets.
func (s *Service) serveList(w http.ResponseWriter, r *http.Request, who caller.Caller, ks *keyring.Keyset, q feedQuery) (begun bool, err error) {
	if !q.whole {
		return false, &invalid{"query", "has no place here: as text the list is always whole"}
	}
	// The head comes first: what is revoked meanwhile may be in the list, but
	// then the next request finds another tag.
	ctx, cancel := context.WithTimeout(r.Context(), listTime)
	defer cancel()
	head, err := s.feedHead(ctx, ks)
	if err != nil {
		return false, err
	}
	tag := feedTag("list", head, 0)
	if notModified(w, r, tag) {
		return false, nil
	}
	end, err := s.last(who, "list", maxLists)
	if err != nil {
		return false, err
	}
	defer end()
	w.Header().Set("Etag", tag)
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	if r.Method == http.MethodHead {
		return false, nil
	}
	b := s.body(w, r)
	defer b.abandon()
	out := bufio.NewWriterSize(b, 32<<10)
	if err := s.writeList(ctx, out, ks); err != nil {
		return b.started, err
	}
	if err := out.Flush(); err != nil {
		return true, err
	}
	return true, b.Close()
}

// writeList writes the jtis as Kuma reads them: with a comma between two and
// nothing else anywhere. A space or a line break beside a jti would silently keep
// it from being revoked, and an empty entry revokes every token without a jti.
func (s *Service) writeList(ctx context.Context, w io.Writer, ks *keyring.Keyset) error {
	comma, unlisted := "", 0
	for after := int64(0); ; {
		page, err := s.listPage(ctx, ks, after)
		if err != nil {
			return err
		}
		for _, r := range page {
			if err := s.goesOn(ctx); err != nil {
				return err
			}
			if !listable(r.JTI) {
				unlisted++
				continue
			}
			if _, err := io.WriteString(w, comma+r.JTI); err != nil {
				return err
			}
			comma = ","
		}
		if len(page) < listPage {
			break
		}
		after = page[len(page)-1].Seq
	}
	if unlisted > 0 {
		s.log.WarnContext(ctx, "revocations left out of a list in text form, which cannot express them",
			slog.String("keyset", ks.Name), slog.Int("count", unlisted))
	}
	return nil
}

// goesOn says whether a list may go on: it has not taken too long, and the replica
// is not shutting down.
func (s *Service) goesOn(ctx context.Context) error {
	select {
	case <-s.ending:
		return errEnding
	default:
		return ctx.Err()
	}
}

func (s *Service) listPage(ctx context.Context, ks *keyring.Keyset, after int64) ([]store.Revocation, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	leave, err := s.feed.Turn(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	return s.store.Revocations(ctx, ks.ID, after, listPage)
}

// listable says whether a jti can be an entry of a list. One with a comma would
// be read as two others. Such jtis are not zonemint's.
func listable(jti string) bool { return jti != "" && !strings.ContainsAny(jti, ",\r\n") }
