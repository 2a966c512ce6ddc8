//go:build linux

package vault_test

import (
	"os/exec"
	"syscall"
)

// dieWithParent has the process killed when the test binary ends in any way.
func dieWithParent(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
