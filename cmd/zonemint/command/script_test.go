package command_test

import (
	"context"
	dbsql "database/sql"
	"encoding/base64"
	"errors"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/zonemint/zonemint/cmd/zonemint/command"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"zonemint": func() {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		defer stop()
		os.Exit(command.Run(ctx, os.Args[1:], command.Std()))
	}})
}

func TestScripts(t *testing.T) {
	t.Parallel()
	testscript.Run(t, scriptParams("testdata/script"))
}

func scriptParams(dir string) testscript.Params {
	return testscript.Params{
		Dir:                 dir,
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		UpdateScripts:       os.Getenv("ZONEMINT_UPDATE_SCRIPTS") != "", // of outputs that are compared as a whole
		Setup: func(env *testscript.Env) error {
			env.Setenv("XDG_DATA_HOME", env.WorkDir+"/share")
			env.Setenv("GORACE", "atexit_sleep_ms=0") // else a second for every command
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"await":   await,
			"capture": capture,
			"exits":   exits,
			"expand":  expand,
			"port":    port,
			"ready":   ready,
			"split":   split,
			"sql":     sql,
			"until":   until,
		},
	}
}

// patience is for machines with much else to do.
const patience = 60 * time.Second

func poll(ts *testscript.TestScript, what string, done func() bool) {
	for end := time.Now().Add(patience); !done(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			ts.Fatalf("%s: not within %s", what, patience)
		}
	}
}

// ready DIR waits for a development server and makes it the one to talk to.
func ready(ts *testscript.TestScript, _ bool, args []string) {
	dir := ts.MkAbs(args[0])
	poll(ts, "addr of zonemint dev", func() bool { _, err := os.Stat(dir + "/addr"); return err == nil })
	ts.Setenv("ZONEMINT_ADDR", strings.TrimSpace(ts.ReadFile(dir+"/addr")))
	ts.Setenv("ZONEMINT_TOKEN_FILE", dir+"/admin.token")
}

// await URL waits until somebody answers there.
func await(ts *testscript.TestScript, _ bool, args []string) {
	poll(ts, args[0], func() bool {
		resp, err := http.Get(args[0])
		if err != nil {
			return false
		}
		return resp.Body.Close() == nil
	})
}

// port NAME sets a variable to a port that was free just now, and that the system
// gives nobody who does not ask for it.
func port(ts *testscript.TestScript, _ bool, args []string) {
	for range 100 {
		p := strconv.Itoa(10000 + rand.IntN(10000))
		if l, err := net.Listen("tcp", "127.0.0.1:"+p); err == nil {
			ts.Check(l.Close())
			ts.Setenv(args[0], p)
			return
		}
	}
	ts.Fatalf("there is no free port")
}

// expand FILE replaces variables in it.
func expand(ts *testscript.TestScript, _ bool, args []string) {
	path := ts.MkAbs(args[0])
	ts.Check(os.WriteFile(path, []byte(os.Expand(ts.ReadFile(path), ts.Getenv)), 0o600))
}

// exits CODE COMMAND runs a command and wants that exit code.
func exits(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		exit, ok := errors.AsType[*exec.ExitError](err)
		if !ok {
			ts.Fatalf("%v", err)
		}
		got = exit.ExitCode()
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

// until REGEXP COMMAND runs a command again and again until it prints that.
func until(ts *testscript.TestScript, _ bool, args []string) {
	want := regexp.MustCompile("(?m)" + args[0])
	poll(ts, strings.Join(args[1:], " ")+" printing "+args[0], func() bool {
		return ts.Exec(args[1], args[2:]...) == nil && want.MatchString(ts.ReadFile("stdout"))
	})
}

// capture NAME REGEXP sets a variable to what the group in REGEXP matches in the
// last command's stdout or stderr.
func capture(ts *testscript.TestScript, _ bool, args []string) {
	m := regexp.MustCompile(args[1]).FindStringSubmatch(ts.ReadFile("stdout") + ts.ReadFile("stderr"))
	if m == nil {
		ts.Fatalf("no match for %s", args[1])
	}
	ts.Setenv(args[0], m[1])
}

// split TOKEN INPUT SIGNATURE writes what a token signs and its raw signature to
// files, as openssl wants them.
func split(ts *testscript.TestScript, _ bool, args []string) {
	token := ts.ReadFile(args[0])
	i := strings.LastIndex(token, ".")
	sig, err := base64.RawURLEncoding.DecodeString(token[i+1:])
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), []byte(token[:i]), 0o600))
	ts.Check(os.WriteFile(ts.MkAbs(args[2]), sig, 0o600))
}

// sql FILE STATEMENT changes a database behind everybody's back.
func sql(ts *testscript.TestScript, _ bool, args []string) {
	db, err := dbsql.Open("sqlite", ts.MkAbs(args[0]))
	ts.Check(err)
	_, err = db.Exec(args[1])
	ts.Check(errors.Join(err, db.Close()))
}
