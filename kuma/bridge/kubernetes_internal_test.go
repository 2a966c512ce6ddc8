package bridge

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	double "github.com/zonemint/zonemint/integration/controlplane"
	"github.com/zonemint/zonemint/kubernetes"
	"github.com/zonemint/zonemint/kuma/controlplane"
)

const namespace = "kong-mesh-system"

// onKubernetes puts the control plane of a bench on Kubernetes.
func onKubernetes(t *testing.T, cluster *double.Cluster) func(*Config) {
	t.Helper()
	srv := httptest.NewTLSServer(cluster)
	t.Cleanup(srv.Close)
	t.Cleanup(func() {
		for _, v := range cluster.Violations() {
			t.Error("the control plane objects:", v)
		}
	})
	text, err := double.Kubeconfig(srv.URL, "an-operator", srv.Certificate())
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "kubeconfig")
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	client, err := kubernetes.New(kubernetes.Config{Kubeconfig: path})
	if err != nil {
		t.Fatal(err)
	}
	return func(c *Config) { c.ControlPlanes[0].Store = controlplane.NewKubernetes(client, namespace) }
}

func TestOnKubernetesNobodysEntryIsLost(t *testing.T) {
	cluster := double.NewCluster("an-operator")
	b := newBench(t, onKubernetes(t, cluster))
	value := func(name string) string {
		s, _ := cluster.Secret(namespace, name)
		return string(s.Data["value"])
	}
	b.run(t)
	b.revoke("zone", "z1")
	b.revoke("dataplane/default", "d1")
	b.eventually(t, "lists", func() bool { return value(zoneList) == "z1" && value(dpList) == "d1" })
	if s, _ := cluster.Secret(namespace, dpList); s.Type != "system.kuma.io/global-secret" {
		t.Errorf("control planes since Kuma 2.10 do not read a %s", s.Type)
	}
	b.eventually(t, "an acknowledgement", func() bool { return len(b.acknowledged()) == 2 })
	for n := range 3 { // somebody writes between the bridge's read and its write
		theirs := "theirs" + string(rune('0'+n))
		cluster.Intrude(namespace, zoneList, func(s *double.CoreSecret) { s.Data["value"] = []byte(string(s.Data["value"]) + "," + theirs) })
		b.revoke("zone", theirs+"-not")
		b.eventually(t, "both entries", func() bool {
			list := strings.Split(value(zoneList), ",")
			return slices.Contains(list, theirs) && slices.Contains(list, theirs+"-not")
		})
	}
	cluster.FailNext(4, http.StatusServiceUnavailable)
	b.revoke("zone", "z2")
	b.eventually(t, "z2", func() bool { return strings.HasSuffix(value(zoneList), ",z2") })
	b.eventually(t, "it is up to date", func() bool { return b.bridge.Ready() == nil })
}

func TestOnKubernetesAMeshsSecretInTheWayIsReported(t *testing.T) {
	cluster := double.NewCluster("an-operator")
	cluster.Set(double.CoreSecret{Type: "system.kuma.io/secret", Data: map[string][]byte{"value": []byte("theirs")}, Metadata: double.Metadata{
		Namespace: namespace, Name: dpList, Labels: map[string]string{"kuma.io/mesh": "default"},
	}})
	b := newBench(t, onKubernetes(t, cluster))
	b.revoke("dataplane/default", "d1")
	r := b.once(t)
	if i := r.item(t, "GlobalSecret "+dpList); i.Outcome != Failed || !strings.Contains(i.Error, "taken") {
		t.Errorf("got %+v", i)
	}
	if i := r.item(t, "Secret default/"+dpList); i.Outcome != Written {
		t.Errorf("got %+v", i)
	}
	if s, _ := cluster.Secret(namespace, dpList); string(s.Data["value"]) != "theirs,d1" {
		t.Errorf("got %s", s.Data["value"])
	}
}

func TestSeveralControlPlanesDoNotWaitForEachOther(t *testing.T) {
	b := newBench(t, func(c *Config) {
		down, err := controlplane.NewREST(controlplane.RESTConfig{Address: "http://127.0.0.1:1"})
		if err != nil {
			t.Fatal(err)
		}
		other := c.ControlPlanes[0]
		other.Name, other.Store, other.Keysets = "down", down, []string{"zone"}
		c.ControlPlanes = append(c.ControlPlanes, other)
	})
	b.run(t)
	b.revoke("zone", "z1")
	b.hasList(t, zoneList, "z1")
	b.eventually(t, "the one that is down is reported", func() bool {
		err := b.bridge.Ready()
		return err != nil && strings.Contains(err.Error(), "control plane down") && !strings.Contains(err.Error(), "control plane cp:")
	})
}
