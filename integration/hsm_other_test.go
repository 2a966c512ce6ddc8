//go:build !linux

package integration

import (
	"os/exec"
	"testing"
)

// hsmProcess stands for what other systems do not end in one go.
type hsmProcess struct{}

func startGroup(t *testing.T, _ *exec.Cmd) hsmProcess {
	t.Helper()
	missing(t, "this test needs Linux")
	return hsmProcess{}
}

func (hsmProcess) kill() {}
