package token

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// Flags of an envelope of the Connect protocol's streams.
const (
	flagCompressed  = 0x01
	flagEndOfStream = 0x02
)

// maxEnvelope is the longest message of a stream that is read, in bytes.
const maxEnvelope = 8 << 20

const envelopePrefix = 5

// appendEnvelope appends a message in its envelope: flags, length, bytes.
func appendEnvelope(dst []byte, flags byte, message []byte) []byte {
	dst = append(dst, flags)
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(message)))
	return append(dst, message...)
}

// readEnvelope reads the next message into buf and says whether it is the stream's
// last. Every stream ends with such a one, so that a cut can be told from an end:
// running out of bytes is [io.ErrUnexpectedEOF].
func readEnvelope(r io.Reader, buf *bytes.Buffer) (last bool, err error) {
	buf.Reset()
	var prefix [envelopePrefix]byte
	if _, err := io.ReadFull(r, prefix[:]); err != nil {
		return false, cut(err)
	}
	flags, size := prefix[0], int64(binary.BigEndian.Uint32(prefix[1:]))
	switch {
	case flags&flagCompressed != 0:
		return false, fmt.Errorf("%w: compressed, which was not offered", ErrFeedPage)
	case flags&^flagEndOfStream != 0:
		return false, fmt.Errorf("%w: envelope with flags %#x", ErrFeedPage, flags)
	case size > maxEnvelope:
		return false, fmt.Errorf("%w: envelope of %d bytes", ErrFeedPage, size)
	}
	// The buffer grows with what arrives, not with what was announced.
	if _, err := io.CopyN(buf, r, size); err != nil {
		return false, cut(err)
	}
	return flags&flagEndOfStream != 0, nil
}

func cut(err error) error {
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("stream was cut: %w", err)
}

// errStreamRefused: streams do not get through, but polls may.
var errStreamRefused = errors.New("stream refused")

// endOfStream returns the error that a stream's last message holds, nil if it ended
// well. The error's message is left out: it is for people who read the server's log,
// and nobody promised that it quotes no credential.
func endOfStream(message []byte) error {
	var end struct {
		Error *struct {
			Code string `json:"code"`
		} `json:"error"`
	}
	if err := json.Unmarshal(message, &end); err != nil {
		return fmt.Errorf("%w: end of stream is not as it should be", ErrFeedPage)
	}
	if end.Error == nil {
		return nil
	}
	switch code := end.Error.Code; code {
	case "unauthenticated", "permission_denied":
		return fmt.Errorf("%w: %s", ErrFeedCredential, code)
	case "not_found":
		return ErrFeedKeyset
	case "unimplemented":
		return fmt.Errorf("%w: %s", errStreamRefused, code)
	default:
		return fmt.Errorf("stream ended with %.32q", code)
	}
}
