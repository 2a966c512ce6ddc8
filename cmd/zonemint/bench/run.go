package bench

import (
	"context"
	"errors"
	"fmt"

	"github.com/zonemint/zonemint/cmd/zonemint/config"
	"github.com/zonemint/zonemint/service/ledger"
	"github.com/zonemint/zonemint/signer"
)

// session is one run of the benchmark.
type session struct {
	Options
	dir  string
	emit func(Result)
	keys map[string]*signer.Key // for raw rates, by algorithm
}

func (s *session) all(ctx context.Context) error {
	if err := s.rawKeys(ctx); err != nil {
		return err
	}
	if err := s.rawRates(ctx); err != nil {
		return err
	}
	for _, name := range s.Stores {
		db, err := s.database(name)
		if err != nil {
			s.say("%v", err)
			continue
		}
		for _, l := range []struct {
			name     string
			recorder ledger.Store
		}{{"on", nil}, {"off", discard{}}} {
			if err := s.measure(ctx, name, db, l.name, l.recorder); err != nil {
				return err
			}
		}
		if err := s.revocations(ctx, name, db); err != nil {
			return err
		}
		if err := s.age(ctx, name, db); err != nil {
			return err
		}
	}
	return s.memory(ctx)
}

func (s *session) database(name string) (config.Database, error) {
	switch {
	case name == "sqlite":
		return config.Database{SQLite: "fresh", Migrate: true}, nil
	case name == "postgres" && s.Postgres != "":
		return config.Database{PostgresEnv: "ZONEMINT_BENCH_POSTGRES", Migrate: true}, nil
	case name == "postgres":
		return config.Database{}, errors.New("postgres is not measured: ZONEMINT_BENCH_POSTGRES does not name an empty database")
	default:
		return config.Database{}, fmt.Errorf("there is no store %q to measure", name)
	}
}

// measure takes the figures of one server.
func (s *session) measure(ctx context.Context, name string, db config.Database, ledgerName string, recorder ledger.Store) (err error) {
	t, err := start(ctx, s.dir, db, recorder)
	if err != nil {
		return err
	}
	t.store, t.ledger = name, ledgerName
	defer func() {
		if serr := t.stop(); err == nil {
			err = serr
		}
	}()
	for _, alg := range s.Algorithms {
		for _, n := range s.Connections {
			if err := s.load(ctx, t, alg, n); err != nil {
				return err
			}
		}
	}
	if err := s.batches(ctx, t); err != nil {
		return err
	}
	if recorder != nil {
		return nil
	}
	return s.keySets(ctx, t)
}

func (s *session) say(format string, args ...any) {
	fmt.Fprintf(s.Progress, format+"\n", args...)
}
