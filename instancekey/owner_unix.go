//go:build unix

package instancekey

import (
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// checkOwner refuses a file that another user can replace or change the mode of.
func checkOwner(path string, info fs.FileInfo) error {
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return fmt.Errorf("instance key %s: its owner cannot be told", path)
	}
	if self := os.Geteuid(); stat.Uid != 0 && int(stat.Uid) != self {
		return fmt.Errorf("instance key %s belongs to the user with ID %d, want root or this process's user: run chown %d %s",
			path, stat.Uid, self, path)
	}
	return nil
}
