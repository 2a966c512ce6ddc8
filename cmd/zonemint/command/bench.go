package command

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime/pprof"
	"time"

	"github.com/spf13/cobra"

	"github.com/zonemint/zonemint/cmd/zonemint/bench"
)

func newBench() *cobra.Command {
	opts := bench.Options{}
	var profile string
	var form *choice
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Measure tokens a second on this machine, beside the raw rate of the same key",
		Long: `Measure how many tokens a second a server on this machine issues, with RS256 and
ES256 keys, on SQLite and if ZONEMINT_BENCH_POSTGRES holds the URL of an empty
database on Postgres too, with the ledger and without it, beside what the same
kinds of key sign with nothing around them.

Client, server and database share this machine. Rates depend on it and on what
else it does; the ratios are what to compare. wrk is the client if it is
installed, otherwise a Go client, which takes twice the processor.`,
		Example: `  zonemint bench --duration 5s
  zonemint bench --connections 32 --memory 1000000 -o json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			opts.Postgres, opts.Progress = os.Getenv("ZONEMINT_BENCH_POSTGRES"), cmd.ErrOrStderr()
			emit := func(r bench.Result) { fmt.Fprintln(cmd.OutOrStdout(), line(r)) }
			if form.value == asJSON {
				enc := json.NewEncoder(cmd.OutOrStdout())
				emit = func(r bench.Result) { _ = enc.Encode(r) } // a broken pipe ends us anyway
			}
			return profiled(profile, func() error { return bench.Run(cmd.Context(), opts, emit) })
		},
	}
	form = outputFlag(cmd, asTable, asJSON)
	f := cmd.Flags()
	f.DurationVar(&opts.Duration, "duration", 5*time.Second, "how long each measurement takes")
	f.IntSliceVar(&opts.Connections, "connections", []int{32, 64}, "how many connections ask at the same time")
	f.IntVar(&opts.Tokens, "memory", 0, "also issue this many tokens and report the server's memory on the way")
	f.IntVar(&opts.Revocations, "revocations", 0, "also time so many revocations on their way to a verifier")
	f.IntVar(&opts.LedgerRows, "ledger-rows", 0, "also compare an empty database with one that has so many ledger rows")
	f.IntVar(&opts.OldSerials, "old-serials", 2000, "how many ended serials that database has")
	f.StringSliceVar(&opts.Stores, "store", []string{"sqlite", "postgres"}, "which stores to measure")
	f.StringSliceVar(&opts.Algorithms, "algorithm", []string{"RS256", "ES256"}, "which algorithms to measure")
	f.StringVar(&profile, "cpu-profile", "", "write a profile of the run to this `file`, for \"go tool pprof\"")
	return cmd
}

// profiled runs fn, with a CPU profile if path says where to.
func profiled(path string, fn func() error) error {
	if path == "" {
		return fn()
	}
	f, err := os.Create(filepath.Clean(path))
	if err != nil {
		return err
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return closing(f, err)
	}
	err = fn()
	pprof.StopCPUProfile()
	return closing(f, err)
}

// line returns a result as a line of a table whose columns are fixed, because
// results are printed as they come.
func line(r bench.Result) string {
	where := r.Store
	if r.Ledger != "" {
		where += ", ledger " + r.Ledger
	}
	text := fmt.Sprintf("%-28s %-22s %-6s", r.Name, where, r.Algorithm)
	if r.PerSecond > 0 {
		text += fmt.Sprintf(" %10.0f/s", r.PerSecond)
	}
	if r.OfRaw > 0 {
		text += fmt.Sprintf("  %5.2f of raw", r.OfRaw)
	}
	if r.P50 > 0 {
		text += fmt.Sprintf("  p50 %7.2f ms  p99 %7.2f ms  %d connections, %s", r.P50, r.P99, r.Connections, r.Client)
	}
	if r.Note != "" {
		text += "  " + r.Note
	}
	return text
}
