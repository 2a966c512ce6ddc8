//go:build !unix

package instancekey

import (
	"fmt"
	"io/fs"
)

// checkOwner refuses every file where neither owner nor mode say who can read it.
func checkOwner(path string, _ fs.FileInfo) error {
	return fmt.Errorf("instance key %s: this system cannot tell who may read a file; give the key in an environment variable", path)
}
