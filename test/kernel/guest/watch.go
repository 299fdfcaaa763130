package main

import (
	"context"
	"fmt"
	"time"

	"github.com/vishvananda/netlink"

	"localloop/internal/netcfg"
)

// watchTests run the product's watch of the kernel on this kernel.
func watchTests() []test {
	return []test{{"netcfg-vlan-goes-down-with-its-parent", func(l *link) error {
		ctx, cancel := context.WithTimeout(context.Background(), limit/2)
		w := netcfg.New(netcfg.Options{Kernel: netcfg.Netlink{}, Interfaces: []string{"near0.100"}})
		ended := make(chan error, 1)
		go func() { ended <- w.Run(ctx) }()
		defer func() { cancel(); <-ended }()
		for len(w.Links()) == 0 {
			if ctx.Err() != nil {
				return fmt.Errorf("the state was not read: %w", ctx.Err())
			}
			time.Sleep(10 * time.Millisecond)
		}
		for _, step := range []struct {
			do   func(netlink.Link) error
			want netcfg.Kind
		}{{netlink.LinkSetDown, netcfg.LinkDown}, {netlink.LinkSetUp, netcfg.LinkUp}} {
			if err := step.do(l.near); err != nil {
				return err
			}
			for got := (netcfg.Event{}); got.Kind != step.want; {
				select {
				case got = <-w.Events():
				case <-ctx.Done():
					return fmt.Errorf("no %v", step.want)
				}
			}
		}
		return nil
	}}}
}
