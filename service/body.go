package service

import (
	"compress/gzip"
	"io"
	"net/http"
	"strconv"
	"sync"
)

// compressFrom is the size from which compressing pays.
const compressFrom = 1024

// body is the body of a 200 answer, which is compressed if the client accepts
// that and it is not tiny. Nothing is written, and another answer can still be
// given, before more than compressFrom bytes have come or Close is called. One
// of Close and abandon ends it.
type body struct {
	w       http.ResponseWriter
	gzip    bool
	pool    *sync.Pool
	head    []byte // held back until it is clear whether to compress
	started bool
	gz      *gzip.Writer
}

func (s *Service) body(w http.ResponseWriter, r *http.Request) *body {
	return &body{w: newLasting(w), gzip: acceptsGzip(r.Header["Accept-Encoding"]), pool: &s.gzips}
}

func (b *body) Write(p []byte) (int, error) {
	if !b.started {
		if len(b.head)+len(p) <= compressFrom {
			b.head = append(b.head, p...)
			return len(p), nil
		}
		if err := b.start(); err != nil {
			return 0, err
		}
	}
	return b.out().Write(p)
}

func (b *body) out() io.Writer {
	if b.gz != nil {
		return b.gz
	}
	return b.w
}

// start writes what was held back, and from here on everything at once.
func (b *body) start() error {
	b.started = true
	if b.gzip {
		b.w.Header().Set("Content-Encoding", "gzip")
		b.gz, _ = b.pool.Get().(*gzip.Writer)
		if b.gz == nil {
			b.gz = gzip.NewWriter(b.w)
		} else {
			b.gz.Reset(b.w)
		}
	}
	_, err := b.out().Write(b.head)
	b.head = nil
	return err
}

// Close writes the rest.
func (b *body) Close() error {
	if !b.started {
		b.w.Header().Set("Content-Length", strconv.Itoa(len(b.head)))
		_, err := b.w.Write(b.head) //nolint:gosec // JSON or plain text, which no browser sniffs at
		return err
	}
	if b.gz == nil {
		return nil
	}
	err := b.gz.Close()
	b.abandon()
	return err
}

// abandon gives the body up without completing it.
func (b *body) abandon() {
	if b.gz != nil {
		b.gz.Reset(nil) // the pool must not hold the response
		b.pool.Put(b.gz)
		b.gz = nil
	}
}
