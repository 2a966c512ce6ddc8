package integration

import (
	"os"
	"os/exec"
	"syscall"
	"testing"
)

// dieWithParent has the kernel end a server whose test process has died, say of
// a time limit, and runs no cleanup.
func dieWithParent(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}

// mountSmall mounts a file system in memory, of a size such as "8m".
func mountSmall(t *testing.T, dir, size string) {
	t.Helper()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		what := "this test needs the right to mount a small file system: " + err.Error()
		if os.Geteuid() == 0 {
			missing(t, what)
		}
		t.Skip(what)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error("unmounting:", err)
		}
	})
}
