package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

// faults says where this process dies.
type faults struct {
	out io.Writer // told of the end, and of what was armed

	mu    sync.Mutex
	point string
	left  int // how many times the point is still passed, this one included
}

// arm sets the point where the process dies, as "POINT", or "POINT@N" for the
// N-th time that it comes there from now on. An empty text is no point.
func (f *faults) arm(text string) error {
	point, nth, counted := strings.Cut(text, "@")
	n := 1
	if counted {
		var err error
		if n, err = strconv.Atoi(nth); err != nil || n < 1 {
			return fmt.Errorf("fault %q: the part after @ is not a number from 1 on", text)
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.point, f.left = point, n
	return nil
}

// at is called wherever a process may die. One point may have several names.
func (f *faults) at(points ...string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, p := range points {
		if p != f.point {
			continue
		}
		if f.left--; f.left == 0 {
			f.die()
		}
		return
	}
}

// die ends the process as kill -9 does, at once and without a chance to clean
// up. It does not return, so that nothing comes after the point.
func (f *faults) die() {
	fmt.Fprintf(f.out, "died at %s\n", f.point)
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {}
}

// obey arms the points that the test writes, one a line, and confirms each.
func (f *faults) obey(r io.Reader) {
	for lines := bufio.NewScanner(r); lines.Scan(); {
		if err := f.arm(lines.Text()); err != nil {
			fmt.Fprintln(f.out, err)
			continue
		}
		fmt.Fprintf(f.out, "armed %s\n", lines.Text())
	}
}
