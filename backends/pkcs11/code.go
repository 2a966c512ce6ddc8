//go:build cgo

package pkcs11

import (
	"errors"

	p11 "github.com/miekg/pkcs11"

	"github.com/zonemint/zonemint/signer"
)

// codeOf classifies what this package made and what modules return.
func codeOf(err error) signer.Code {
	if code, ok := known(err); ok {
		return code
	}
	if rv, ok := errors.AsType[p11.Error](err); ok {
		return codeOfModule(rv)
	}
	return signer.Unknown
}

func codeOfModule(rv p11.Error) signer.Code {
	switch rv {
	case p11.CKR_SESSION_COUNT:
		return signer.Throttled
	case p11.CKR_PIN_INCORRECT, p11.CKR_PIN_LOCKED, p11.CKR_PIN_EXPIRED, p11.CKR_KEY_FUNCTION_NOT_PERMITTED,
		p11.CKR_TOKEN_WRITE_PROTECTED, p11.CKR_SESSION_READ_ONLY, ckrActionProhibited:
		return signer.Denied
	case p11.CKR_OBJECT_HANDLE_INVALID, p11.CKR_KEY_HANDLE_INVALID:
		return signer.NotFound
	case p11.CKR_MECHANISM_INVALID, p11.CKR_MECHANISM_PARAM_INVALID, p11.CKR_FUNCTION_NOT_SUPPORTED, ckrCurveNotSupported:
		return signer.Unsupported
	case p11.CKR_PIN_INVALID, p11.CKR_PIN_LEN_RANGE, p11.CKR_USER_PIN_NOT_INITIALIZED, p11.CKR_USER_TYPE_INVALID,
		p11.CKR_USER_ANOTHER_ALREADY_LOGGED_IN, p11.CKR_USER_TOO_MANY_TYPES,
		p11.CKR_ATTRIBUTE_READ_ONLY, p11.CKR_ATTRIBUTE_TYPE_INVALID, p11.CKR_ATTRIBUTE_VALUE_INVALID,
		p11.CKR_TEMPLATE_INCOMPLETE, p11.CKR_TEMPLATE_INCONSISTENT, p11.CKR_DOMAIN_PARAMS_INVALID,
		p11.CKR_KEY_SIZE_RANGE, p11.CKR_KEY_TYPE_INCONSISTENT, p11.CKR_DATA_INVALID, p11.CKR_DATA_LEN_RANGE,
		p11.CKR_ARGUMENTS_BAD, p11.CKR_CANT_LOCK, p11.CKR_NEED_TO_CREATE_THREADS:
		return signer.Misconfigured
	case p11.CKR_GENERAL_ERROR, p11.CKR_FUNCTION_FAILED, p11.CKR_FUNCTION_CANCELED, p11.CKR_HOST_MEMORY, p11.CKR_DEVICE_MEMORY:
		return signer.Unavailable
	}
	if gone(rv) {
		return signer.Unavailable
	}
	return signer.Unknown
}

// Codes that package p11 lacks.
const (
	ckrActionProhibited  = 0x1b
	ckrCurveNotSupported = 0x140
)

// gone says whether rv means that the sessions are of no more use: the HSM is
// gone, or has forgotten them or their login, or one is left in the middle of
// something. All of these are cured by connecting again and by nothing else.
func gone(rv p11.Error) bool {
	switch rv {
	case p11.CKR_DEVICE_ERROR, p11.CKR_DEVICE_REMOVED, p11.CKR_TOKEN_NOT_PRESENT, p11.CKR_TOKEN_NOT_RECOGNIZED,
		p11.CKR_SLOT_ID_INVALID, p11.CKR_SESSION_HANDLE_INVALID, p11.CKR_SESSION_CLOSED,
		p11.CKR_CRYPTOKI_NOT_INITIALIZED, p11.CKR_USER_NOT_LOGGED_IN,
		p11.CKR_OPERATION_ACTIVE, p11.CKR_OPERATION_NOT_INITIALIZED:
		return true
	}
	return false
}

// suspicious says whether rv may mean that the HSM is gone, or merely that it
// did not like this one call. One bad key must not take the others down, so that
// has to be found out.
func suspicious(rv p11.Error) bool {
	switch rv {
	case p11.CKR_GENERAL_ERROR, p11.CKR_FUNCTION_FAILED, p11.CKR_HOST_MEMORY, p11.CKR_DEVICE_MEMORY:
		return true
	}
	return rv >= p11.CKR_VENDOR_DEFINED
}

// aboutPIN says whether a login failed because of the PIN itself. Trying that
// again would lock the token.
func aboutPIN(err error) bool {
	rv, ok := errors.AsType[p11.Error](err)
	if !ok {
		return false
	}
	switch rv {
	case p11.CKR_PIN_INCORRECT, p11.CKR_PIN_INVALID, p11.CKR_PIN_LEN_RANGE, p11.CKR_PIN_EXPIRED, p11.CKR_PIN_LOCKED,
		p11.CKR_USER_PIN_NOT_INITIALIZED:
		return true
	}
	return false
}

// stale says whether an object is no longer what its handle says.
func stale(err error) bool {
	rv, ok := errors.AsType[p11.Error](err)
	return ok && (rv == p11.CKR_OBJECT_HANDLE_INVALID || rv == p11.CKR_KEY_HANDLE_INVALID)
}
