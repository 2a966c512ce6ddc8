package integration

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// binaryVariable names the binary that the tests run, replicaVariable the one
// that dies on demand. TestMain sets them, unless somebody did, to have another
// build tested.
const (
	binaryVariable  = "ZONEMINT_TEST_BINARY"
	replicaVariable = "ZONEMINT_TEST_REPLICA"
)

func TestMain(m *testing.M) { os.Exit(withBinary(m)) }

func withBinary(m *testing.M) int {
	dir, err := os.MkdirTemp("", "zonemint-integration-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(dir) }() // the system clears its temporary files, too
	err = watchSources()
	for variable, source := range map[string]string{binaryVariable: "../cmd/zonemint", replicaVariable: "./replica"} {
		if os.Getenv(variable) == "" {
			binary := filepath.Join(dir, filepath.Base(source))
			err = errors.Join(err, build(binary, source), os.Setenv(variable, binary))
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

func build(binary, source string) error {
	out, err := exec.Command("go", "build", "-o", binary, source).CombinedOutput()
	if err != nil {
		return fmt.Errorf("building %s: %w\n%s", source, err, out)
	}
	return nil
}

// watchSources lists every folder of the module. These tests import nothing of
// what they test, so "go test" would take its cached result for good after a
// change; it does not if the test was seen to look at what has changed.
func watchSources() error {
	return filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && path != ".." && d.Name()[0] == '.' {
			return fs.SkipDir
		}
		return err
	})
}

// shut closes what nothing more is wanted from.
func shut(c io.Closer) { _ = c.Close() }

// output is what a command left behind.
type output struct {
	stdout, stderr string
	code           int
}

// run runs a program to its end. Whether it succeeded is for the caller to judge.
func run(t *testing.T, name string, args ...string) output {
	t.Helper()
	return runWith(t, nil, name, args...)
}

// runWith is run with more in the environment.
func runWith(t *testing.T, env []string, name string, args ...string) output {
	t.Helper()
	const patience = 2 * time.Minute
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Stdout, cmd.Stderr, cmd.Env, cmd.WaitDelay = &stdout, &stderr, append(os.Environ(), env...), 20*time.Second
	timer := time.AfterFunc(patience, func() { _ = cmd.Cancel() })
	defer timer.Stop()
	err := cmd.Run()
	if err != nil && cmd.ProcessState == nil {
		t.Fatalf("%s: %v", name, err)
	}
	return output{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

// must fails the test unless the command succeeded, and returns what it printed.
func (o output) must(t *testing.T) string {
	t.Helper()
	if o.code != 0 {
		t.Fatalf("exit code %d\n%s%s", o.code, o.stdout, o.stderr)
	}
	return o.stdout
}

// zonemint runs a command of the binary.
func zonemint(t *testing.T, args ...string) output {
	t.Helper()
	return run(t, os.Getenv(binaryVariable), args...)
}

// need skips the test if a program is missing, or fails it if nothing may be
// missing.
func need(t *testing.T, program string) {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		missing(t, "this test needs the program "+program)
	}
}

func missing(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("ZONEMINT_TEST_REQUIRE") == "1" {
		t.Fatal(what)
	}
	t.Skip(what)
}

// rounds returns how often something random is tried: few times, or many where
// it is to be proved.
func rounds(few, many int) int {
	if os.Getenv("ZONEMINT_PROVE") == "1" {
		return many
	}
	return few
}
