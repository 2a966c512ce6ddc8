package command

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// importReport is what an import has done.
type importReport struct {
	Keys        []importedKey  `json:"keys"`
	Revocations []importedList `json:"revocations"`

	empty []string // keysets for which there was nothing
}

// show prints the report, and what comes next. It fails if anything did.
func (r *importReport) show(cmd *cobra.Command, form *choice, t *takeover) error {
	out, failed := cmd.OutOrStdout(), r.err()
	if form.value == asJSON {
		enc := json.NewEncoder(out)
		enc.SetIndent("", "  ")
		return errors.Join(failed, enc.Encode(r))
	}
	if err := printTables(out, r.tables(t.dryRun)...); err != nil {
		return errors.Join(failed, err)
	}
	if failed != nil {
		return failed
	}
	text := "\nThis was a dry run; nothing was done."
	if !t.dryRun {
		text = r.nextSteps(t.until)
	}
	_, err := fmt.Fprintln(out, text)
	return err
}

func (r *importReport) tables(dryRun bool) []table {
	var out []table
	keys := table{header: []string{"KEYSET", "KID", "SECRET", "RESULT", "TRUSTED UNTIL", "DETAIL"}}
	for _, k := range r.Keys {
		keys.add(k.Keyset, k.KID, k.Secret, k.Result, k.TrustedUntil, firstLine(k.Detail))
	}
	if len(keys.rows) > 0 {
		out = append(out, keys)
	}
	revoked := "REVOKED"
	if dryRun {
		revoked = "WOULD REVOKE"
	}
	lists := table{header: []string{"KEYSET", "LIST", "LISTED", "KNOWN", revoked, "REFUSED"}}
	for _, l := range r.Revocations {
		lists.add(l.Keyset, strings.Join(l.Secrets, ", "), strconv.Itoa(l.Listed), strconv.Itoa(l.Known), strconv.Itoa(l.Revoked), strconv.Itoa(len(l.Refused)))
	}
	if len(lists.rows) > 0 {
		out = append(out, lists)
	}
	return out
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}

// err returns everything that went wrong.
func (r *importReport) err() error {
	var errs []error
	for _, name := range r.empty {
		errs = append(errs, fmt.Errorf("keyset %q: the secrets have no key and no revocations of its tokens. Is it the global control plane, and its administrator who asks?", name))
	}
	for _, l := range r.Revocations {
		if l.err != nil {
			errs = append(errs, fmt.Errorf("keyset %q, revocations: %w (its keys were not imported)", l.Keyset, l.err))
		}
	}
	for _, k := range r.Keys {
		if k.failed() {
			errs = append(errs, &keyError{k})
		}
	}
	return errors.Join(errs...)
}

// keyError is a key that was not taken over.
type keyError struct{ key importedKey }

func (e *keyError) Error() string {
	return fmt.Sprintf("keyset %q, key %q: %s: %s", e.key.Keyset, e.key.KID, e.key.Result, e.key.Detail)
}

func (e *keyError) Unwrap() error { return e.key.err }

// nextSteps says what is left to do.
func (r *importReport) nextSteps(until time.Time) string {
	end := ""
	var secrets []string
	for _, k := range r.Keys {
		if k.Result == keyImported || k.Result == keyKnown {
			secrets, end = append(secrets, k.Secret), max(end, k.TrustedUntil)
		}
	}
	end = cmp.Or(end, until.UTC().Format(time.RFC3339))
	slices.Sort(secrets)
	text := `
What comes next:

1. Give control planes the keys of these keysets, beside their own:
     zonemint kuma export
2. Have tokens issued here: point kumactl and scripts to this server
   (kumactl config control-planes add --address ...), or use "zonemint generate".
3. Switch off the control plane's issuer, when nobody asks it any more:
     zonemint kuma export --enable-issuer=false
4. Issue anew, before ` + end + `, every token that lives longer.
   From then on these keysets do not trust the control plane's keys any more.`
	if len(secrets) == 0 {
		return text
	}
	return text + `
5. After that time, and not before, delete its keys on the global control plane.
   Within seconds no zone accepts their tokens:
     ` + strings.Join(slices.Compact(secrets), "\n     ") + `
   A control plane that finds no key at its start makes a new one, with which
   nothing was signed; with useSecrets: false nothing would believe it either.`
}
