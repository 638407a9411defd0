package intent

import (
	"fmt"
	"net/netip"
	"net/url"
)

// Webhook reads a webhook action: where an event is sent to. That is over https,
// or over http to the host itself.
func (a Action) Webhook() (*url.URL, error) {
	if err := a.known(); err != nil {
		return nil, err
	}
	u, err := url.Parse(a.Target)
	switch {
	case err != nil || u.Host == "" || u.Opaque != "":
		return nil, fmt.Errorf("%s is not an address such as https://example.org/hook", quote(a.Target))
	case u.User != nil:
		return nil, fmt.Errorf("%s has a user or a password in it, which all who read the reflex would see; leave it out", quote(u.Redacted()))
	case u.Fragment != "":
		return nil, fmt.Errorf("%s has a fragment, which is not sent; leave it out", quote(a.Target))
	case u.Scheme == "https", u.Scheme == "http" && isLoopback(u.Hostname()):
		return u, nil
	}
	return nil, fmt.Errorf("%s is not over https; http is for the host itself alone (127.0.0.1, ::1, localhost)", quote(a.Target))
}

func isLoopback(host string) bool {
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && addr.IsLoopback()
}
