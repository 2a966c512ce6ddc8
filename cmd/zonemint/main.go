// Command zonemint issues the signed tokens by which zones, data planes and
// users of a service mesh prove who they are. "zonemint help" lists what it does.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/zonemint/zonemint/cmd/zonemint/command"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// Whoever does not want to wait for the end interrupts a second time.
	context.AfterFunc(ctx, stop)
	os.Exit(command.Run(ctx, os.Args[1:], command.Std()))
}
