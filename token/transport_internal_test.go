package token

import (
	"net/http"
	"testing"
)

// Whoever gives no transport has one that pings, and http.DefaultTransport stays
// as it is.
func TestOwnTransport(t *testing.T) {
	keys, err := NewRemoteKeys("https://tokens.example.com", RemoteOptions{})
	if err != nil {
		t.Fatal(err)
	}
	feed, err := NewRemoteRevocations("https://tokens.example.com", "zone", RevocationOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []*http.Client{keys.fetcher.client, feed.client.client} {
		got, ok := c.Transport.(*http.Transport)
		if !ok || got.HTTP2 == nil || got.HTTP2.SendPingTimeout != pingAfter || got.HTTP2.PingTimeout != pingTimeout || !got.ForceAttemptHTTP2 || got.Proxy == nil {
			t.Errorf("transport is %+v", c.Transport)
		}
	}
	if std := http.DefaultTransport.(*http.Transport); std.HTTP2 != nil {
		t.Errorf("the standard transport has changed: %+v", std.HTTP2)
	}
}
