package awskms

import (
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"syscall"

	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/zonemint/zonemint/signer"
)

// unreached sorts failures of the network, and says what has failed in words that quote
// nobody who was asked, not even a proxy on the way. The code is Unknown if the request
// was not tried.
func unreached(err error) (signer.Code, string) {
	if e, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return signer.Misconfigured, "the server's certificate is not trusted: " + oneLine(e.Err.Error())
	}
	if errors.Is(err, http.ErrSchemeMismatch) {
		return signer.Misconfigured, "the server speaks HTTP, without TLS"
	}
	if e, ok := errors.AsType[*net.DNSError](err); ok {
		if e.IsNotFound {
			return signer.Unavailable, "there is no host " + oneLine(e.Name)
		}
		return signer.Unavailable, "the host " + oneLine(e.Name) + " cannot be looked up"
	}
	if e, ok := errors.AsType[*net.OpError](err); ok {
		where := e.Op
		if e.Addr != nil {
			where += " " + e.Addr.String()
		}
		return signer.Unavailable, where + ": " + errno(err, "the connection fails")
	}
	if brokeOff(err) {
		return signer.Unavailable, "the connection broke off"
	}
	if late(err) {
		return signer.Unavailable, "no answer in time"
	}
	if _, ok := errors.AsType[*smithyhttp.RequestSendError](err); ok {
		return signer.Unavailable, "the request could not be sent, or a proxy on the way refuses it"
	}
	return signer.Unknown, ""
}

// errno is what the operating system says, or else otherwise.
func errno(err error, otherwise string) string {
	if e, ok := errors.AsType[syscall.Errno](err); ok {
		return e.Error()
	}
	if late(err) {
		return "no answer in time"
	}
	return otherwise
}

func late(err error) bool {
	e, ok := errors.AsType[net.Error](err)
	return ok && e.Timeout()
}
