package config_test

import (
	"strings"
	"testing"
	"time"

	"github.com/zonemint/zonemint/cmd/zonemint/config"
)

func TestKumaSyncExampleIsGood(t *testing.T) {
	c, err := config.ReadKumaSync("../../../deploy/kuma-sync.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if len(c.ControlPlanes) != 2 || c.ControlPlanes[0].REST == nil || c.ControlPlanes[1].Kubernetes == nil {
		t.Fatalf("got %+v", c)
	}
	for _, p := range c.ControlPlanes { // one says the defaults, the other takes them
		if p.ZoneDelay != 5*time.Second || p.Resync != 30*time.Second {
			t.Errorf("%s: got %s and %s", p.Name, p.ZoneDelay, p.Resync)
		}
	}
}

func TestKumaSyncReportsAllFaultsAtOnce(t *testing.T) {
	_, err := config.ParseKumaSync([]byte(`
zonemint: {addr: x, nonsense: y}
control_planes:
  - name: Bad
    zone_delay: 5
    rest: {client_cert_file: a, headers: {authorization: b}}
  - name: two
    resync: 1ms
  - name: two
    rest: {address: x}
    kubernetes: {namespace: x}
  - name: three
    kubernetes: {}
log: {level: loud}
`))
	if err == nil {
		t.Fatal("it is taken")
	}
	for _, want := range []string{
		"nonsense", "control_planes[0].name", "zone_delay", "control_planes[0].rest.address", "client_cert_file and client_key_file",
		"token_file", "control_planes[1].resync", "control_planes[1].rest, kubernetes", "control_planes[2].name: \"two\" is there twice",
		"control_planes[2].rest, kubernetes", "control_planes[3].kubernetes.namespace", "log.level",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%s is not said:\n%v", want, err)
		}
	}
	if _, err := config.ParseKumaSync(nil); err == nil || !strings.Contains(err.Error(), "control_planes: name at least one") {
		t.Errorf("nothing at all: got %v", err)
	}
}

func TestKumaSyncHeadersMayHaveDots(t *testing.T) {
	c, err := config.ParseKumaSync([]byte(`control_planes: [{name: a, rest: {address: "https://a", headers: {x.y: z}}}]`))
	if err != nil || c.ControlPlanes[0].REST.Headers["x.y"] != "z" {
		t.Errorf("got %+v, %v", c, err)
	}
}
