// Package migrations holds the database schemas, embedded, and nothing else.
//
// Files are numbered and only go forward: one that has landed is not edited,
// and there is no way down.
package migrations

import "embed"

// Postgres holds the migrations for PostgreSQL in the folder "postgres".
//
//go:embed postgres/*.sql
var Postgres embed.FS

// SQLite holds the migrations for SQLite in the folder "sqlite".
//
//go:embed sqlite/*.sql
var SQLite embed.FS
