package signer

// Usage is how much of what a backend may use at a time is in use: sessions of an
// HSM, connections to a server.
type Usage struct {
	InUse   int   // now
	Limit   int   // at the most
	Waiting int   // calls that wait for one
	GaveUp  int64 // calls that waited in vain, since the backend was opened
}

// UsageReporter is a [Backend] with a bound on what it uses at a time. The answer
// is a snapshot and makes no call.
type UsageReporter interface {
	Usage() Usage
}

// Usage returns what the backend reports; false if it has no bound.
func (g *Guard) Usage() (Usage, bool) {
	r, ok := g.Backend.(UsageReporter)
	if !ok {
		return Usage{}, false
	}
	return r.Usage(), true
}
