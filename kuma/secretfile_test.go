package kuma_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/zonemint/zonemint/kuma"
)

const kumactlSecrets = `total: 2
items:
- type: GlobalSecret
  name: zone-token-revocations
  creationTime: "0001-01-01T00:00:00Z"
  data: YSxi
- type: Secret
  mesh: default
  name: sec-1
  data: dGVzdA==
next: null
`

const kubectlSecrets = `apiVersion: v1
kind: List
items:
- apiVersion: v1
  kind: Secret
  type: system.kuma.io/global-secret
  metadata: {name: zone-token-revocations, namespace: kuma-system}
  data: {value: YSxi}
- apiVersion: v1
  kind: Secret
  type: system.kuma.io/secret
  metadata:
    name: sec-1
    labels: {kuma.io/mesh: default}
  data:
    value: dGVzdA==
- apiVersion: v1
  kind: Secret
  type: Opaque
  metadata: {name: tls}
  data: {tls.key: "???"}
`

func TestReadSecrets(t *testing.T) {
	t.Parallel()
	both := []string{"GlobalSecret zone-token-revocations=a,b", "Secret default/sec-1=test"}
	for name, c := range map[string]struct {
		text string
		want []string
	}{
		"kumactl":      {kumactlSecrets, both},
		"kubectl":      {kubectlSecrets, both},
		"JSON":         {`{"items": [{"type": "GlobalSecret", "name": "x", "data": "YQ=="}]}`, []string{"GlobalSecret x=a"}},
		"one":          {"type: GlobalSecret\nname: x\ndata: YQ==\n", []string{"GlobalSecret x=a"}},
		"documents":    {kumactlSecrets + "---\n" + "type: GlobalSecret\nname: x\ndata: YQ==\n", append(slices.Clone(both), "GlobalSecret x=a")},
		"without mesh": {"type: system.kuma.io/secret\nmetadata: {name: x}\ndata: {value: YQ==}\n", []string{"Secret default/x=a"}},
		"empty":        {"", nil},
		"no secrets":   {"items: []\n", nil},
		"folded":       {"type: GlobalSecret\nname: x\ndata: |\n  YQ\n  ==\n", []string{"GlobalSecret x=a"}},
	} {
		secrets, err := kuma.ReadSecrets(strings.NewReader(c.text))
		var got []string
		for _, s := range secrets {
			got = append(got, fmt.Sprintf("%s=%s", s.Ref, s.Data))
		}
		if err != nil || !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

func TestReadSecretsShowsNothingOfThem(t *testing.T) {
	t.Parallel()
	const secret = "c2VjcmV0LXNlY3JldA"
	for name, text := range map[string]string{
		"not base64": "type: GlobalSecret\nname: x\ndata: '%" + secret + "'\n",
		"no YAML":    "\t" + secret + ": [",
		"wrong type": "items: " + secret,
		"no data":    "type: GlobalSecret\nname: x\nother: " + secret,
		"no value":   "type: GlobalSecret\nname: x\ndata: {values: " + secret + "}",
		"no map":     "metadata: " + secret,
	} {
		_, err := kuma.ReadSecrets(strings.NewReader(text))
		if err == nil || strings.Contains(err.Error(), secret[:4]) {
			t.Errorf("%s: error is %v", name, err)
		}
	}
}

func FuzzReadSecrets(f *testing.F) {
	for _, text := range []string{kumactlSecrets, kubectlSecrets, "type: GlobalSecret\nname: x\ndata: YQ==\n---\n[]"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		secrets, err := kuma.ReadSecrets(strings.NewReader(text))
		if err != nil && secrets != nil {
			t.Error("secrets beside an error")
		}
	})
}
