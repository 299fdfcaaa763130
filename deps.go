//go:build deps

// Package localloop lists dependencies that are in use on branches under way.
package localloop

import (
	_ "github.com/alecthomas/kong"
	_ "github.com/coreos/go-systemd/v22/daemon"
	_ "github.com/creack/pty"
	_ "github.com/emiago/sipgo"
	_ "github.com/google/go-cmp/cmp"
	_ "github.com/google/nftables"
	_ "github.com/pelletier/go-toml/v2"
	_ "github.com/pion/ice/v2"
	_ "github.com/pion/ice/v4"
	_ "github.com/pion/logging"
	_ "github.com/pion/rtcp"
	_ "github.com/pion/rtp"
	_ "github.com/pion/srtp/v2"
	_ "github.com/pion/srtp/v3"
	_ "github.com/pion/stun"
	_ "github.com/pion/transport/v2"
	_ "github.com/prometheus/client_golang/prometheus"
	_ "github.com/prometheus/client_golang/prometheus/promhttp"
	_ "github.com/vishvananda/netlink"
	_ "github.com/vishvananda/netns"
	_ "go.bug.st/serial"
	_ "go.uber.org/goleak"
	_ "golang.org/x/sync/errgroup"
	_ "golang.org/x/sys/unix"
	_ "golang.org/x/time/rate"
)
