package intent

import (
	"strings"
	"testing"
)

func TestAddress(t *testing.T) {
	for _, good := range []string{"10.0.0.10/24", "10.0.0.10/32", "10.0.0.0/31", "10.0.0.1/31", "2001:db8::10/64", "2001:db8::/64", "fd00::1/128"} {
		p, err := ParseAddress(good)
		if err != nil || p.String() != good {
			t.Errorf("%s: %s, %v", good, p, err)
		}
	}
	for bad, want := range map[string]string{
		"10.0.0.10":          "want 10.0.0.10/32",
		"2001:db8::10":       "2001:db8::10/128",
		"vip":                "such as 10.0.0.10/24",
		"":                   "such as 10.0.0.10/24",
		"10.0.0.10/33":       "such as 10.0.0.10/24",
		"10.0.0.010/24":      "such as 10.0.0.10/24",
		"10.0.0.10/24 ":      "such as 10.0.0.10/24",
		"fe80::1%eth0/64":    "such as 10.0.0.10/24",
		"fe80::1/64":         "link-local",
		"169.254.0.9/16":     "link-local",
		"127.0.0.2/8":        "loopback",
		"::1/128":            "loopback",
		"0.0.0.0/8":          "no address of a host",
		"::/128":             "no address of a host",
		"10.0.0.10/0":        "no address of a host",
		"224.0.0.1/24":       "multicast",
		"ff02::1/64":         "multicast",
		"::ffff:10.0.0.1/96": "IPv6 form",
		"10.0.0.0/24":        "a network",
		"10.0.0.255/24":      "broadcast",
		"10.0.1.255/23":      "broadcast",
		"255.255.255.255/32": "broadcast",
	} {
		if _, err := ParseAddress(bad); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want it refused for %s", bad, err, want)
		}
	}
}
