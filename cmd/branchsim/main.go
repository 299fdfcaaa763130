// Command branchsim is the simulated other side of edged on a workstation: a
// Teams tenant with a user in the building and one outside, and a serial line
// card with two phones and an exchange line. It is made of the test doubles and
// shares no protocol code with edged.
//
//	branchsim prepare   writes keys, certificates and a configuration for edged
//	branchsim live      lives until Ctrl-C, shows calls, places some
//	branchsim once      places the standard calls, prints a table and JSON
//	branchsim cuts      cuts the LAN path of many calls, prints how long voice was away
//
// What it reports is measured here: tones found by frequency at the far end,
// packets and marks counted on the interfaces (or at the client's sockets where
// the kernel permits no capture). edged is asked for nothing but its status page.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/alecthomas/kong"
)

// options is the command line. Addresses default to a loopback branch.
type options struct {
	Dir    string     `default:".run" help:"Directory for keys, certificates and the configuration." type:"path"`
	LAN    netip.Addr `name:"lan" default:"127.0.0.10" help:"The box's address on the branch LAN."`
	WAN    netip.Addr `name:"wan" default:"127.0.0.20" help:"The box's public address."`
	Client netip.Addr `default:"127.0.0.11" help:"Address of the Teams client in the building."`
	Cloud  netip.Addr `default:"127.0.0.30" help:"Address of Microsoft's proxies, relay and of the client outside."`
	TTY    string     `name:"tty" help:"Path of the line card's terminal, a symbolic link. Default: tty-card in the directory." type:"path"`
	HTTP   string     `name:"http" default:"127.0.0.1:8080" help:"edged's HTTP listener, for its configuration."`
	Ports  string     `default:"20000-20199" help:"The box's media ports."`
	SIP    uint16     `name:"sip-port" default:"5061" help:"Port of the trunk and of the first proxy; the others follow."`
	LANIf  string     `name:"lan-if" help:"Interface here that leads to the box's LAN; none on loopback."`
	WANIf  string     `name:"wan-if" help:"Interface here that leads to the box's WAN; none on loopback."`
	BoxLAN string     `name:"box-lan-if" help:"The box's own LAN interface, for its configuration."`
	BoxWAN string     `name:"box-wan-if" help:"The box's own WAN interface, for its configuration."`

	RefuseFor time.Duration `default:"10s" help:"For the configuration: how long edged refuses new calls after it has moved one."`
	Status    string        `help:"URL of edged's /status.json: when it can take calls, and for the live view."`

	LANNetns    string `name:"lan-netns" help:"File of the network namespace that the branch LAN is in; default: the one this runs in." type:"path"`
	StatusNetns string `name:"status-netns" help:"File of the network namespace that edged listens in." type:"path"`

	Cut     string `enum:"auto,client,link,command" default:"auto" help:"How the LAN path is cut: client loses its datagrams, link takes lan-if down, command runs cut-with and mends with mend-with. auto: link where there is one."`
	CutWith string `help:"Shell command that cuts the LAN path."`
	Mend    string `name:"mend-with" help:"Shell command that mends it."`

	Delay   time.Duration `help:"Delay of each datagram on the Teams clients' paths, each way."`
	Jitter  time.Duration `help:"Added to the delay, uniformly distributed from 0."`
	Loss    float64       `help:"Share of datagrams lost on the Teams clients' paths, 0 to 1."`
	Corrupt float64       `help:"Share of datagrams with one octet changed, 0 to 1."`

	Talk    time.Duration `default:"3s" help:"How long the parties of a call talk."`
	Ready   time.Duration `default:"90s" help:"How long to wait for edged (it pings Teams once a minute): trunk active, card linked."`
	Verbose bool          `short:"v" help:"Log what the doubles see to stderr."`

	limits limits // zero: the usual ones; tests of faults shorten them

	Prepare prepareCommand `cmd:"" help:"Write keys, certificates and edged.toml."`
	Live    liveCommand    `cmd:"" help:"Live until Ctrl-C, show calls, place some."`
	Once    onceCommand    `cmd:"" help:"Place the standard calls, print a table and JSON."`
	Cuts    cutsCommand    `cmd:"" help:"Cut the LAN path of many calls, print how long the voice was away."`
}

const boxFQDN = "edge.branch.example"

func (o *options) file(name string) string { return filepath.Join(o.Dir, name) }

func (o *options) tty() string {
	if o.TTY != "" {
		return o.TTY
	}
	return o.file("tty-card")
}

func (o *options) loopback() bool { return o.LANIf == "" && o.WANIf == "" }

// errFailed says that everything worth saying has been printed.
var errFailed = errors.New("failed")

func main() { os.Exit(execute(os.Args[1:], os.Stdout, os.Stderr)) }

// execute parses the command line and runs one command: 0 done, 1 a call or a
// command failed, 2 the command line is wrong.
func execute(args []string, out, errOut io.Writer) (code int) {
	var o options
	exited := -1
	parser, err := kong.New(&o, kong.Name("branchsim"), kong.Description("The simulated other side of edged: Teams, a line card, phones."),
		kong.Writers(out, errOut), kong.UsageOnError(), kong.Exit(func(code int) { exited = code; panic(errFailed) }))
	if err != nil {
		fmt.Fprintln(errOut, "branchsim:", err)
		return 2
	}
	defer func() { // --help leaves through kong.Exit
		if exited >= 0 && recover() != nil {
			code = exited
		}
	}()
	command, err := parser.Parse(args)
	if err != nil {
		fmt.Fprintln(errOut, "branchsim:", err)
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	command.BindTo(ctx, (*context.Context)(nil))
	err = command.Run(&o, terminal{out, errOut})
	switch {
	case err == nil:
		return 0
	case errors.Is(err, errFailed):
		return 1
	}
	fmt.Fprintln(errOut, "branchsim:", err)
	return 1
}

// terminal is what commands print to.
type terminal struct{ out, err io.Writer }
