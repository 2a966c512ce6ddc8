package pkcs11

import "time"

// Stats is what is going on at a module, at one moment.
type Stats struct {
	Module     string    // path
	DownSince  time.Time // zero while it is up
	Reconnects uint64    // how often it has come back
	Tokens     []TokenStats
}

// TokenStats is what is going on at one token of a module.
type TokenStats struct {
	Token    string // label, or serial number if it was selected by that
	Sessions int    // how many calls there can be at a time
	InUse    int    // calls under way, those included whose callers have left
	Waiting  int    // calls that wait for a session or for their turn
	TimedOut uint64 // waits that took too long, ever
	Left     uint64 // calls whose callers left before they ended, ever
	Denied   bool   // the token refused the PIN, which is not tried again
}
