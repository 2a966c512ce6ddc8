// Package agent keeps a token fresh where it is used: in a file or in a Secret of
// Kubernetes.
//
// It asks for a new token when two thirds of the old one's life are over, and keeps
// the old one until the new one is in its place. A server that is away for less than
// a third of that life is therefore not noticed by whoever reads the token. How much
// of a life is over is told by the process's monotonic clock, counted from before
// the token was asked for, so that a wrong clock of the machine does no harm; and by the
// machine's clock, too, since the other one stands still while a machine sleeps.
package agent
