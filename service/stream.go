package service

import (
	"context"
	"errors"
	"io"
	"net/http"
	"time"

	"buf.build/go/protovalidate"
	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
)

// errEnding: the replica is shutting down and lets its streams go.
var errEnding = errors.New("this replica is shutting down")

// EndStreams ends all streams, those that come later too: they would hold up a
// server that waits for its requests to finish. Run does it at its end.
func (s *Service) EndStreams() { s.endOnce.Do(func() { close(s.ending) }) }

// edges validates requests and gives errors their outside form, in calls and in
// streams.
type edges struct{ *Service }

func (e edges) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc { return e.intercept(next) }

func (e edges) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return next
}

// WrapStreamingHandler does for streams what intercept does for calls, but for
// the time limit: a stream may last.
func (e edges) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		method := conn.Spec().Procedure
		conn.ResponseHeader().Set("Cache-Control", "no-store")
		e.metrics.streamBegins(ctx, method)
		checked := &checkedConn{StreamingHandlerConn: conn, validator: e.validator}
		err := next(ctx, checked)
		switch {
		case err == nil:
		case checked.broken != nil && errors.Is(err, checked.broken):
			// Of the protocol, in Connect's words, such as a body that cannot
			// be decoded. Calls fail like this before they are intercepted.
			e.metrics.streamEnds(ctx, method, connect.CodeOf(err).String())
			return err
		case errors.Is(err, errEnding) || errors.Is(err, context.Canceled):
			// Nothing failed. There may be thousands of them at once.
			err = outside(requestID(ctx), err)
		default:
			err = e.edge(ctx, method, requestID(ctx), callerOf(ctx), err)
		}
		code := "ok"
		if err != nil {
			code = connect.CodeOf(err).String()
		}
		e.metrics.streamEnds(ctx, method, code)
		return err
	}
}

// checkedConn validates what it receives, and remembers what the connection
// itself failed with.
type checkedConn struct {
	connect.StreamingHandlerConn
	validator protovalidate.Validator
	broken    error
}

func (c *checkedConn) Receive(into any) error {
	if err := c.StreamingHandlerConn.Receive(into); err != nil {
		if !errors.Is(err, io.EOF) {
			c.broken = err
		}
		return err
	}
	if msg, ok := into.(proto.Message); ok {
		return c.validator.Validate(msg)
	}
	return nil
}

func (c *checkedConn) Send(msg any) error {
	err := c.StreamingHandlerConn.Send(msg)
	if err != nil {
		c.broken = err
	}
	return err
}

const (
	// readerPatience is how long the reader of a lasting response may take to take in
	// what was written.
	readerPatience = 30 * time.Second
	// streamSilence is for how long nothing need be written. In HTTP/2 a deadline ends
	// a stream also while nobody writes.
	streamSilence = 10 * readerPatience
)

// lasting is a response that may take as long as its reader goes on reading. The
// server's time limits, which are meant for the whole of a request, would end it.
type lasting struct {
	http.ResponseWriter
	control *http.ResponseController
}

func newLasting(w http.ResponseWriter) *lasting {
	return &lasting{w, http.NewResponseController(w)}
}

// Write begins the reader's time anew. By the time of the first one the request
// has been read, and its own time limit has done its duty.
func (l *lasting) Write(b []byte) (int, error) {
	_ = l.control.SetReadDeadline(time.Time{}) // not every ResponseWriter can, and then has no limits
	_ = l.control.SetWriteDeadline(time.Now().Add(readerPatience))
	return l.ResponseWriter.Write(b)
}

// Flush implements [http.Flusher], which Connect insists on.
func (l *lasting) Flush() {
	if l.control.Flush() == nil {
		_ = l.control.SetWriteDeadline(time.Now().Add(streamSilence))
	}
}

// Unwrap serves [http.ResponseController].
func (l *lasting) Unwrap() http.ResponseWriter { return l.ResponseWriter }
