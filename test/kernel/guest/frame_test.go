package main

import "testing"

func TestDecode(t *testing.T) {
	ethernet := make([]byte, 12)
	ip := append([]byte{0x45, 46 << 2, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2}, 0x12, 0x34, 0x4e, 0x20, 0, 8, 0, 0)
	join := func(parts ...[]byte) (b []byte) {
		for _, p := range parts {
			b = append(b, p...)
		}
		return b
	}
	want := frame{dscp: 46, dstPort: 20000}
	if got, ok := decode(join(ethernet, []byte{8, 0}, ip)); !ok || got != want {
		t.Errorf("untagged: %+v %v", got, ok)
	}
	want.tagged, want.pcp, want.vlan = true, 5, 100
	whole := join(ethernet, []byte{0x81, 0, 0xA0, 100, 8, 0}, ip)
	if got, ok := decode(whole); !ok || got != want {
		t.Errorf("tagged: %+v %v", got, ok)
	}
	for n := range whole {
		if got, ok := decode(whole[:n]); ok {
			t.Errorf("%d bytes decoded as %+v", n, got)
		}
	}
	arp := join(ethernet, []byte{8, 6}, ip)
	if _, ok := decode(arp); ok {
		t.Error("ARP taken for UDP")
	}
}
