package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// memory runs "zonemint dev" as a process of its own and reports its resident
// size when idle, on the way, and after the last of s.Tokens tokens. Flat means
// that nothing of a token stays behind.
func (s *session) memory(ctx context.Context) error {
	if s.Tokens == 0 {
		return nil
	}
	p, err := s.spawn(ctx)
	if err != nil {
		return err
	}
	defer p.stop()
	if err := s.resident(p, 0); err != nil {
		return err
	}
	client := &http.Client{Timeout: time.Minute}
	item := `{"zone":{"zone":"west","validFor":"3600s"}}`
	r := request{http.MethodPost, p.base + batchPath, p.token, `{"items":[` + strings.Repeat(item+",", batchSize-1) + item + `]}`}
	for done := 0; done < s.Tokens; {
		if err := once(ctx, client, r); err != nil {
			return fmt.Errorf("memory: %w", err)
		}
		done += batchSize
		if done%(max(s.Tokens/4, batchSize)) == 0 || done >= s.Tokens {
			if err := s.resident(p, done); err != nil {
				return err
			}
		}
	}
	return nil
}

// process is a server with a process of its own.
type process struct {
	cmd   *exec.Cmd
	base  string
	token string
}

var listensOn = regexp.MustCompile(`listening on (http://\S+)`)

func (s *session) spawn(ctx context.Context) (*process, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	data := filepath.Join(s.dir, "dev")
	p := &process{cmd: exec.CommandContext(ctx, self, "dev", "--listen", "127.0.0.1:0", "--data", data)}
	var out syncBuffer
	p.cmd.Stdout, p.cmd.Stderr = &out, os.Stderr
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	for range 600 {
		if m := listensOn.FindStringSubmatch(out.String()); m != nil {
			p.base = m[1]
			token, err := os.ReadFile(filepath.Join(data, "admin.token"))
			p.token = strings.TrimSpace(string(token))
			return p, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
	p.stop()
	return nil, errors.New("the server did not start within a minute")
}

func (p *process) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // gone already if it fails
	_ = p.cmd.Wait()
}

var vmRSS = regexp.MustCompile(`VmRSS:\s+(\d+) kB`)

// resident reports what /proc says of the server.
func (s *session) resident(p *process, tokens int) error {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		return fmt.Errorf("memory can be read on Linux only: %w", err)
	}
	m := vmRSS.FindSubmatch(status)
	if m == nil {
		return errors.New("memory: no VmRSS")
	}
	kb, err := strconv.ParseFloat(string(m[1]), 64)
	if err != nil {
		return err
	}
	s.emit(Result{Name: "resident memory", Store: "sqlite", Note: fmt.Sprintf("%.1f MiB after %d tokens", kb/1024, tokens)})
	return nil
}

// syncBuffer is a buffer that a process writes while we read it.
type syncBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
