package integration

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
)

// block is a fenced block of a page.
type block struct {
	line int
	info string
	text string
}

// blocks returns the fenced blocks of a page.
func blocks(t *testing.T, page string) []block {
	t.Helper()
	var out []block
	open := false
	n := 0
	for line := range strings.Lines(page) {
		n++
		info, fence := strings.CutPrefix(strings.TrimSpace(line), "```")
		switch {
		case strings.HasPrefix(line, "~~~"):
			t.Fatalf("line %d: a fence that is not looked for", n)
		case fence && open:
			open = false
		case fence:
			open = true
			out = append(out, block{line: n, info: info})
		case open:
			out[len(out)-1].text += line
		}
	}
	if open {
		t.Fatalf("the block of line %d does not end", out[len(out)-1].line)
	}
	return out
}

// walkthrough runs the steps of a page, in a folder of their own and with nothing in
// their PATH but what was put there.
type walkthrough struct {
	dir     string // where the steps run
	tools   string // what they find in their PATH
	state   string // what has to outlive a step
	replace *strings.Replacer
}

// newWalkthrough makes the folders. Replaced is what stands in the page and what
// stands in for it, by turns.
func newWalkthrough(t *testing.T, replaced ...string) *walkthrough {
	t.Helper()
	need(t, "bash")
	return &walkthrough{dir: t.TempDir(), tools: t.TempDir(), state: t.TempDir(), replace: strings.NewReplacer(replaced...)}
}

// tool puts a program into the PATH of the steps, under a name.
func (w *walkthrough) tool(t *testing.T, name, program string) {
	t.Helper()
	if err := os.Symlink(program, filepath.Join(w.tools, name)); err != nil {
		t.Fatal(err)
	}
}

// file puts a file where the steps run.
func (w *walkthrough) file(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(w.dir, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// read returns a file that the steps have left.
func (w *walkthrough) read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(w.dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// run runs all blocks of a page in their order. It returns how many of them were
// commands.
func (w *walkthrough) run(t *testing.T, page string) (steps int) {
	t.Helper()
	named := regexp.MustCompile(`^# ([a-z0-9-]+\.yaml)\n`)
	for _, b := range blocks(t, page) {
		text := w.replace.Replace(b.text)
		switch b.info {
		case "sh":
			w.step(t, fmt.Sprint("line ", b.line), text)
			steps++
		case "yaml":
			if err := yaml.Unmarshal([]byte(text), new(any)); err != nil {
				t.Fatalf("line %d: %v", b.line, err)
			}
			if m := named.FindStringSubmatch(text); m != nil {
				w.file(t, m[1], text)
			}
		case "":
		default:
			t.Fatalf("line %d: nobody knows what to do with a block of %s", b.line, b.info)
		}
	}
	return steps
}

// step runs one block and wants it to succeed.
func (w *walkthrough) step(t *testing.T, what, text string) {
	t.Helper()
	start := time.Now()
	out, err := w.try(t, text)
	if err != nil {
		t.Fatalf("%s: %v\n%s\n%s", what, err, text, out)
	}
	t.Logf("%s, %s:\n%s\n%s", what, time.Since(start).Round(time.Millisecond), text, out)
}

// try runs one block, and returns what it printed and whether it failed. What it
// exports is there in the next one. It fails for a program that is not there also
// where the shell would go on without it, as in $(...) among the arguments of another.
func (w *walkthrough) try(t *testing.T, text string) (string, error) {
	t.Helper()
	exports, missing := filepath.Join(w.state, "exports"), filepath.Join(w.state, "missing")
	script := fmt.Sprintf("test ! -e %[1]q || . %[1]q\n%[2]s\nexport -p >%[1]q\n", exports, text)
	const patience = 2 * time.Minute
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-eu", "-o", "pipefail", "-c", script)
	cmd.Dir, cmd.WaitDelay = w.dir, 20*time.Second
	cmd.Env = []string{
		"PATH=" + w.tools, "HOME=" + w.dir, "KUBECONFIG=" + filepath.Join(w.dir, "kubeconfig"), "MESHTOOLS_STATE=" + w.state, "NO_PROXY=*",
		fmt.Sprintf(`BASH_FUNC_command_not_found_handle%%%%=() { echo "$1" >>%q; return 127; }`, missing),
	}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	if names, readErr := os.ReadFile(missing); readErr == nil {
		err = fmt.Errorf("nothing stands in for %s", strings.TrimSpace(string(names)))
		if removeErr := os.Remove(missing); removeErr != nil {
			t.Fatal(removeErr)
		}
	}
	return out.String(), err
}

// standIns puts the programs there that stand in for those that come from elsewhere.
func (w *walkthrough) standIns(t *testing.T) {
	t.Helper()
	program := filepath.Join(t.TempDir(), "meshtools")
	if err := build(program, "./meshtools"); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"kubectl", "kumactl", "helm", "kuma-cp"} {
		w.tool(t, name, program)
	}
	cat, err := exec.LookPath("cat")
	if err != nil {
		t.Fatal(err)
	}
	w.tool(t, "cat", cat)
}

// matches says whether a text has what the pattern says.
func matches(pattern, text string) bool { return regexp.MustCompile(pattern).MatchString(text) }
