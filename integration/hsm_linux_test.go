package integration

import (
	"os/exec"
	"syscall"
	"testing"
)

// hsmProcess is a program that has children, which end together with it.
type hsmProcess struct{ cmd *exec.Cmd }

func startGroup(t *testing.T, cmd *exec.Cmd) hsmProcess {
	t.Helper()
	dieWithParent(cmd)
	cmd.SysProcAttr.Setpgid = true
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return hsmProcess{cmd}
}

func (p hsmProcess) kill() {
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
	_ = p.cmd.Wait()
}
