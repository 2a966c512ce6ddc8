package service

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"

	"connectrpc.com/connect"
)

// recovered turns a panic into an internal error. The stack goes to the log; it
// holds addresses and no values.
func (s *Service) recovered(ctx context.Context, spec connect.Spec, _ http.Header, p any) error {
	s.log.ErrorContext(ctx, "panic", slog.String("method", spec.Procedure), slog.String("request_id", requestID(ctx)),
		slog.String("type", fmt.Sprintf("%T", p)), slog.String("stack", string(debug.Stack())))
	return connect.NewError(connect.CodeInternal, errors.New("internal error; the server's log has the cause"))
}
