package command

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/zonemint/zonemint/store"
)

func newLedger() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "ledger",
		Short: "Check and read the record of issued tokens",
		Long: `Check and read the record of issued tokens: one row for every token, never the
token. "list" asks a server; "verify" and "show" go to the database, on the server's
own machine.`,
	}
	cmd.AddCommand(newLedgerList(), newLedgerVerify(), newLedgerShow())
	return cmd
}

func newLedgerVerify() *cobra.Command {
	var path string
	var form *choice
	cmd := &cobra.Command{
		Use:   "verify --config FILE",
		Short: "Check that nobody has changed, added or taken away rows of the ledger",
		Long: `Read the whole ledger and check that every batch carries the instance key's MAC,
follows the one before it, and has the rows that it was recorded with. Rows that
the configured retention may have forgotten are not missed. Batches that were cut
off the end of a chain cannot be noticed.

It goes around the API, to the database, and so needs the server's configuration
and its instance key. Servers on Postgres may go on running; on SQLite only one
process at a time has the database, so stop the server first. Exit code 1 means
that something is wrong.`,
		Example: `  zonemint ledger verify --config /etc/zonemint/zonemint.yaml`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, db, err := openStore(cmd, path, false)
			if err != nil {
				return err
			}
			return closing(db, verifyLedger(cmd, db, c.Retention, form))
		},
	}
	configFlag(cmd, &path)
	form = outputFlag(cmd, asTable, asJSON)
	return cmd
}

// ledgerReport is the JSON form of a check.
type ledgerReport struct {
	Writers int      `json:"writers"`
	Batches int64    `json:"batches"`
	Rows    int64    `json:"rows"`
	Pruned  int64    `json:"pruned"`
	Faults  []string `json:"faults"`
}

func verifyLedger(cmd *cobra.Command, db *store.DB, retention time.Duration, form *choice) error {
	progress, done := ledgerProgress(cmd.ErrOrStderr())
	check, err := db.CheckLedger(cmd.Context(), retention, progress)
	done()
	if err != nil {
		return err
	}
	faults := append([]string{}, check.Faults...) // [] in JSON, not null
	if form.value == asJSON {
		err = writeJSON(cmd, ledgerReport{check.Writers, check.Batches, check.Rows, check.Pruned, faults})
	} else {
		t := table{}
		t.add("writers", strconv.Itoa(check.Writers))
		t.add("batches", strconv.FormatInt(check.Batches, 10))
		t.add("rows", strconv.FormatInt(check.Rows, 10))
		t.add("batches with forgotten rows", strconv.FormatInt(check.Pruned, 10))
		t.add("faults", strconv.Itoa(len(faults)))
		for _, f := range faults {
			t.add("fault", f)
		}
		err = t.print(cmd.OutOrStdout())
	}
	if err == nil && len(faults) > 0 {
		err = fmt.Errorf("the ledger has %d faults: it was changed by something without the instance key, or damaged", len(faults))
	}
	return err
}

// ledgerProgress shows how far a check is, on a terminal only.
func ledgerProgress(w io.Writer) (progress func(store.LedgerCheck), done func()) {
	if !isTerminal(w) {
		return func(store.LedgerCheck) {}, func() {}
	}
	progress = func(c store.LedgerCheck) {
		_, _ = fmt.Fprintf(w, "\r%d batches, %d rows, %d faults", c.Batches, c.Rows, len(c.Faults))
	}
	return progress, func() { say(w, "") }
}

func newLedgerShow() *cobra.Command {
	var path string
	var form *choice
	cmd := &cobra.Command{
		Use:   "show JTI --config FILE",
		Short: "Show what is recorded of a token, by its ID",
		Long: `Show what is recorded of a token: for whom and by whom it was issued. The token
itself is not stored anywhere. A row means that the token may have been given out.`,
		Example: `  zonemint ledger show 0198f1c4-6c1e-7a51-9d55-4f0ad6f21b7e --config /etc/zonemint/zonemint.yaml`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			jti, err := uuid.Parse(args[0])
			if err != nil {
				return usage{errors.New("this is not the ID of a token, its claim jti")}
			}
			_, db, err := openStore(cmd, path, false)
			if err != nil {
				return err
			}
			return closing(db, showIssuance(cmd, db, jti, form))
		},
	}
	configFlag(cmd, &path)
	form = outputFlag(cmd, asTable, asJSON)
	return cmd
}

// issuanceReport is the JSON form of a row of the ledger.
type issuanceReport struct {
	JTI       string          `json:"jti"`
	Keyset    string          `json:"keyset"`
	Serial    int             `json:"serial"`
	Subject   string          `json:"subject"`
	Scopes    json.RawMessage `json:"scopes"`
	IssuedAt  time.Time       `json:"issuedAt"`
	ExpiresAt time.Time       `json:"expiresAt"`
	Caller    string          `json:"caller"`
	Writer    string          `json:"writer"`
	Batch     int64           `json:"batch"`
}

func showIssuance(cmd *cobra.Command, db *store.DB, jti uuid.UUID, form *choice) error {
	row, err := db.Issuance(cmd.Context(), jti)
	if errors.Is(err, store.ErrNotFound) {
		return fmt.Errorf("the ledger has no token %s; rows are forgotten some time after their token has expired", jti)
	}
	if err != nil {
		return err
	}
	ring, err := db.LoadRing(cmd.Context())
	if err != nil {
		return err
	}
	r := issuanceReport{
		row.JTI.String(), keysetName(ring, row.KeysetID), row.Serial, row.Subject, json.RawMessage(row.Scopes),
		row.IssuedAt, row.ExpiresAt, row.Caller, row.Writer.String(), row.Batch,
	}
	if form.value == asJSON {
		return writeJSON(cmd, r)
	}
	t := table{}
	t.add("jti", r.JTI)
	t.add("key", fmt.Sprintf("%s, serial %d", r.Keyset, r.Serial))
	t.add("subject", r.Subject)
	t.add("scopes", row.Scopes)
	t.add("issued", r.IssuedAt.Format(time.RFC3339))
	t.add("expires", r.ExpiresAt.Format(time.RFC3339))
	t.add("caller", r.Caller)
	t.add("recorded in", fmt.Sprintf("batch %d of writer %s", r.Batch, r.Writer))
	return t.print(cmd.OutOrStdout())
}

// keysetName returns the name of a keyset, its ID if the ring does not have it.
func keysetName(ring store.Ring, id uuid.UUID) string {
	for _, k := range ring.Keysets {
		if k.ID == id {
			return k.Name
		}
	}
	return id.String()
}

func writeJSON(cmd *cobra.Command, v any) error {
	enc := json.NewEncoder(cmd.OutOrStdout())
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}
