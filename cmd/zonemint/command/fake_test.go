package command_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"connectrpc.com/connect"
	"github.com/rogpeppe/go-internal/testscript"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	pb "github.com/zonemint/zonemint/proto/zonemint/v1"
	v1 "github.com/zonemint/zonemint/proto/zonemint/v1/zonemintv1connect"
)

// TestFakeScripts plays scripts against a server whose answers are written down
// in them: for outputs that are the same every time, and for what a real server
// cannot be brought to say at will.
func TestFakeScripts(t *testing.T) {
	t.Parallel()
	params := scriptParams("testdata/fake")
	params.Cmds["fake"] = startFake
	params.Cmds["forget"] = func(ts *testscript.TestScript, _ bool, _ []string) {
		ts.Check(os.Remove(ts.MkAbs("requests")))
	}
	params.Cmds["appears"] = func(ts *testscript.TestScript, _ bool, args []string) {
		poll(ts, args[0], func() bool { _, err := os.Stat(ts.MkAbs(args[0])); return err == nil })
	}
	testscript.Run(t, params)
}

// fake answers calls from files: a call of RotateKeyset gets RotateKeyset.1.json,
// the second one RotateKeyset.2.json, and if there is no such file the last
// before it. A file that begins with "error" fails the call with a code and a
// text. Requests are written to the file "requests".
type fake struct {
	v1.UnimplementedKeyServiceHandler
	v1.UnimplementedRevocationServiceHandler
	v1.UnimplementedAuditServiceHandler
	answers, requests string

	mu    sync.Mutex
	calls map[string]int
}

const fakeToken = "zmt_fake"

// startFake FOLDER starts a fake server with the answers in the folder, and makes
// it the one to talk to.
func startFake(ts *testscript.TestScript, _ bool, args []string) {
	f := &fake{answers: ts.MkAbs(args[0]), requests: ts.MkAbs("requests"), calls: map[string]int{}}
	mux := http.NewServeMux()
	mux.Handle(v1.NewKeyServiceHandler(f))
	mux.Handle(v1.NewRevocationServiceHandler(f))
	mux.Handle(v1.NewAuditServiceHandler(f))
	mux.HandleFunc("GET /keysets/", f.document)
	s := httptest.NewServer(authenticated(mux))
	ts.Defer(s.Close)
	ts.Setenv("ZONEMINT_ADDR", s.URL)
	ts.Setenv("ZONEMINT_TOKEN_FILE", ts.MkAbs("api.token"))
	ts.Check(os.WriteFile(ts.MkAbs("api.token"), []byte(fakeToken), 0o600))
}

// authenticated insists that every request, streams too, has the API token.
func authenticated(next http.Handler) http.Handler {
	refuse := connect.NewErrorWriter()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer "+fakeToken {
			_ = refuse.Write(w, r, connect.NewError(connect.CodeUnauthenticated, errors.New("who are you?")))
			return
		}
		next.ServeHTTP(w, r)
	})
}

// next returns the next answer to a method, and writes down what was asked.
func (f *fake) next(method string, req proto.Message) ([]byte, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	asked, err := protojson.Marshal(req)
	if err != nil {
		return nil, err
	}
	var line bytes.Buffer
	if err := json.Compact(&line, asked); err != nil {
		return nil, err
	}
	if err := f.note(method + " " + line.String()); err != nil {
		return nil, err
	}
	f.calls[method]++
	var text []byte
	for n := f.calls[method]; n > 0 && text == nil; n-- {
		text, _ = os.ReadFile(filepath.Join(f.answers, fmt.Sprintf("%s.%d.json", method, n)))
	}
	if text == nil {
		return nil, connect.NewError(connect.CodeUnimplemented, errors.New(method+" has no answer"))
	}
	if rest, failed := bytes.CutPrefix(text, []byte("error ")); failed {
		name, message, _ := strings.Cut(strings.TrimSpace(string(rest)), " ")
		var code connect.Code
		if err := code.UnmarshalText([]byte(name)); err != nil {
			return nil, err
		}
		return nil, connect.NewError(code, errors.New(message))
	}
	return text, nil
}

func (f *fake) note(line string) error {
	out, err := os.OpenFile(f.requests, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(out, line)
	return errors.Join(err, out.Close())
}

// answer fills in the next answer to a call.
func answer[T proto.Message](f *fake, method string, req proto.Message, resp T) (T, error) {
	var none T
	text, err := f.next(method, req)
	if err != nil {
		return none, err
	}
	return resp, protojson.Unmarshal(text, resp)
}

// document serves what is no call: DIR/keysets/zone/jwks.json, and feeds with
// ".txt" or ".json" at their end.
func (f *fake) document(w http.ResponseWriter, r *http.Request) {
	name := strings.TrimPrefix(r.URL.Path, "/")
	if strings.HasSuffix(name, "/revocations") {
		name += map[bool]string{true: ".txt", false: r.URL.Query().Get("since") + ".json"}[r.Header.Get("Accept") == "text/plain"]
	}
	text, err := os.ReadFile(filepath.Join(f.answers, name))
	if err != nil {
		http.Error(w, "there is no such keyset", http.StatusNotFound)
		return
	}
	_, _ = w.Write(bytes.TrimSpace(text))
}

func (f *fake) WatchRevocations(ctx context.Context, req *pb.WatchRevocationsRequest, out *connect.ServerStream[pb.WatchRevocationsResponse]) error {
	text, err := f.next("WatchRevocations", req)
	if err != nil {
		return err
	}
	for line := range bytes.Lines(text) {
		if string(line) == "hang\n" {
			<-ctx.Done()
			return nil
		}
		page := &pb.WatchRevocationsResponse{}
		if err := protojson.Unmarshal(line, page); err != nil {
			return err
		}
		if err := out.Send(page); err != nil {
			return err
		}
	}
	return nil
}

func (f *fake) CreateKeyset(_ context.Context, req *pb.CreateKeysetRequest) (*pb.CreateKeysetResponse, error) {
	return answer(f, "CreateKeyset", req, &pb.CreateKeysetResponse{})
}

func (f *fake) UpdateKeyset(_ context.Context, req *pb.UpdateKeysetRequest) (*pb.UpdateKeysetResponse, error) {
	return answer(f, "UpdateKeyset", req, &pb.UpdateKeysetResponse{})
}

func (f *fake) ListKeysets(_ context.Context, req *pb.ListKeysetsRequest) (*pb.ListKeysetsResponse, error) {
	return answer(f, "ListKeysets", req, &pb.ListKeysetsResponse{})
}

func (f *fake) ListSigningKeys(_ context.Context, req *pb.ListSigningKeysRequest) (*pb.ListSigningKeysResponse, error) {
	return answer(f, "ListSigningKeys", req, &pb.ListSigningKeysResponse{})
}

func (f *fake) GetSigningKey(_ context.Context, req *pb.GetSigningKeyRequest) (*pb.GetSigningKeyResponse, error) {
	return answer(f, "GetSigningKey", req, &pb.GetSigningKeyResponse{})
}

func (f *fake) RotateKeyset(_ context.Context, req *pb.RotateKeysetRequest) (*pb.RotateKeysetResponse, error) {
	return answer(f, "RotateKeyset", req, &pb.RotateKeysetResponse{})
}

func (f *fake) ActivateSigningKey(_ context.Context, req *pb.ActivateSigningKeyRequest) (*pb.ActivateSigningKeyResponse, error) {
	return answer(f, "ActivateSigningKey", req, &pb.ActivateSigningKeyResponse{})
}

func (f *fake) RetireSigningKey(_ context.Context, req *pb.RetireSigningKeyRequest) (*pb.RetireSigningKeyResponse, error) {
	return answer(f, "RetireSigningKey", req, &pb.RetireSigningKeyResponse{})
}

func (f *fake) DistrustSigningKey(_ context.Context, req *pb.DistrustSigningKeyRequest) (*pb.DistrustSigningKeyResponse, error) {
	return answer(f, "DistrustSigningKey", req, &pb.DistrustSigningKeyResponse{})
}

func (f *fake) DestroySigningKey(_ context.Context, req *pb.DestroySigningKeyRequest) (*pb.DestroySigningKeyResponse, error) {
	return answer(f, "DestroySigningKey", req, &pb.DestroySigningKeyResponse{})
}

func (f *fake) ImportPublicKey(_ context.Context, req *pb.ImportPublicKeyRequest) (*pb.ImportPublicKeyResponse, error) {
	return answer(f, "ImportPublicKey", req, &pb.ImportPublicKeyResponse{})
}

func (f *fake) AcknowledgeKeys(_ context.Context, req *pb.AcknowledgeKeysRequest) (*pb.AcknowledgeKeysResponse, error) {
	return answer(f, "AcknowledgeKeys", req, &pb.AcknowledgeKeysResponse{})
}

func (f *fake) ReconcileSigningKeys(_ context.Context, req *pb.ReconcileSigningKeysRequest) (*pb.ReconcileSigningKeysResponse, error) {
	return answer(f, "ReconcileSigningKeys", req, &pb.ReconcileSigningKeysResponse{})
}

func (f *fake) RevokeToken(_ context.Context, req *pb.RevokeTokenRequest) (*pb.RevokeTokenResponse, error) {
	return answer(f, "RevokeToken", req, &pb.RevokeTokenResponse{})
}

func (f *fake) RevokeTokens(_ context.Context, req *pb.RevokeTokensRequest) (*pb.RevokeTokensResponse, error) {
	return answer(f, "RevokeTokens", req, &pb.RevokeTokensResponse{})
}

func (f *fake) LiftRevocation(_ context.Context, req *pb.LiftRevocationRequest) (*pb.LiftRevocationResponse, error) {
	return answer(f, "LiftRevocation", req, &pb.LiftRevocationResponse{})
}

func (f *fake) GetRevocation(_ context.Context, req *pb.GetRevocationRequest) (*pb.GetRevocationResponse, error) {
	return answer(f, "GetRevocation", req, &pb.GetRevocationResponse{})
}

func (f *fake) ListRevocations(_ context.Context, req *pb.ListRevocationsRequest) (*pb.ListRevocationsResponse, error) {
	return answer(f, "ListRevocations", req, &pb.ListRevocationsResponse{})
}

func (f *fake) ListIssuances(_ context.Context, req *pb.ListIssuancesRequest) (*pb.ListIssuancesResponse, error) {
	return answer(f, "ListIssuances", req, &pb.ListIssuancesResponse{})
}

func (f *fake) ListAuditEvents(_ context.Context, req *pb.ListAuditEventsRequest) (*pb.ListAuditEventsResponse, error) {
	return answer(f, "ListAuditEvents", req, &pb.ListAuditEventsResponse{})
}
