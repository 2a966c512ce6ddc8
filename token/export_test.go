package token

// VerifyForTest checks a signature without a token around it.
func VerifyForTest(k Key, signingInput, signature string) error {
	sig, err := DecodeForTest(signature)
	if err != nil {
		return err
	}
	return k.verify(signingInput, sig)
}

// DecodeForTest decodes one part of a token.
func DecodeForTest(part string) ([]byte, error) { return strictBase64.DecodeString(part) }

// FreshForTest is how long a response is fresh.
var FreshForTest = freshFor
