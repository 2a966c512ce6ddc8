package pkcs11

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"time"

	"github.com/zonemint/zonemint/signer"
)

const (
	pinTimeout = 10 * time.Second // for the command
	pinMax     = 4096             // bytes that are read from a source
)

// fetchPIN returns the PIN. No error quotes what the source holds or prints.
func (o Options) fetchPIN(ctx context.Context) (string, error) {
	switch {
	case o.PINFile != "":
		return pinFromFile(o.PINFile)
	case o.PINEnv != "":
		return pinFrom([]byte(os.Getenv(o.PINEnv)), "the environment variable "+o.PINEnv)
	default:
		return pinFromCommand(ctx, o.PINCommand)
	}
}

func pinFromFile(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", failf(signer.Misconfigured, "read the PIN: %w", err)
	}
	defer f.Close() //nolint:errcheck // it was only read
	text, err := io.ReadAll(io.LimitReader(f, pinMax))
	if err != nil {
		return "", failf(signer.Misconfigured, "read the PIN: %w", err)
	}
	return pinFrom(text, "the file "+path)
}

// pinFromCommand names the program and not its arguments, which may hold what
// unlocks the PIN, and drops what it says on standard error.
func pinFromCommand(ctx context.Context, argv []string) (string, error) {
	within, cancel := context.WithTimeout(ctx, pinTimeout)
	defer cancel()
	cmd := exec.CommandContext(within, argv[0], argv[1:]...)
	out := &limited{left: pinMax}
	cmd.Stdout, cmd.WaitDelay = out, time.Second
	err := cmd.Run()
	if ended := ctx.Err(); ended != nil {
		return "", ended
	}
	if within.Err() != nil {
		return "", failf(signer.Misconfigured, "the PIN command %s took longer than %v", argv[0], pinTimeout)
	}
	if err != nil {
		return "", failf(signer.Misconfigured, "the PIN command %s: %w", argv[0], err)
	}
	return pinFrom(out.text.Bytes(), "the PIN command "+argv[0])
}

// limited keeps the first bytes that are written to it and drops the others.
type limited struct {
	text bytes.Buffer
	left int
}

func (l *limited) Write(p []byte) (int, error) {
	keep := min(len(p), l.left)
	l.left -= keep
	l.text.Write(p[:keep])
	return len(p), nil
}

// pinFrom returns the first line of text.
func pinFrom(text []byte, source string) (string, error) {
	line, _, _ := bytes.Cut(text, []byte("\n"))
	line = bytes.TrimSuffix(line, []byte("\r"))
	if len(line) == 0 {
		return "", &codedError{signer.Misconfigured, errors.New("there is no PIN in the first line of " + source)}
	}
	if bytes.IndexByte(line, 0) >= 0 {
		return "", &codedError{signer.Misconfigured, errors.New("the PIN has a zero byte in it, in " + source)}
	}
	return string(line), nil
}
