// Package integration runs the built zonemint binary against real databases and
// plays out what must not go wrong: kills, lost databases, full disks, replicas
// side by side. It sees what operators and control planes see, the command line,
// the API and the public keys, and looks into the database only to count what is
// there.
//
// The tests on Postgres need a server in ZONEMINT_TEST_POSTGRES and are skipped
// without it, as are those that need a program which is not installed. With
// ZONEMINT_TEST_REQUIRE=1 they fail instead. With ZONEMINT_PROVE=1 everything
// that is left to chance is tried more often.
package integration
