// Command edged is the voice daemon of a branch-office box. It joins Microsoft
// Teams Direct Routing to SIP trunks and analog lines; docs/architecture.md
// shows its parts.
//
// This package builds the parts, joins them, runs them in one group and drains
// them at the end. It holds the few adapters between columns that must not know
// each other, and nothing else.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"

	"github.com/alecthomas/kong"

	"localloop/internal/config"
)

// version is set by the linker for releases; otherwise the commit is shown.
var version = ""

// commands is the command line of edged.
type commands struct {
	Config string `short:"c" default:"/etc/edged/edged.toml" env:"EDGED_CONFIG" help:"Configuration file." type:"path"`

	Run     runCommand     `cmd:"" help:"Run the daemon."`
	Check   checkCommand   `cmd:"" help:"Check a configuration file and print every fault."`
	Status  statusCommand  `cmd:"" help:"Show the state of the running daemon."`
	Route   routeCommand   `cmd:"" help:"Show where a number would go and why."`
	Version versionCommand `cmd:"" help:"Print the version."`
}

// env is what commands print to.
type env struct{ out, err io.Writer }

// errReported says that everything worth saying has been printed.
var errReported = errors.New("reported")

func main() { os.Exit(execute(os.Args[1:], env{os.Stdout, os.Stderr})) }

// execute parses the command line and runs one command. Exit codes: 0 done,
// 1 the command failed, 2 the command line or the configuration is wrong.
func execute(args []string, e env) (code int) {
	var c commands
	exited := -1
	parser, err := kong.New(&c,
		kong.Name("edged"),
		kong.Description("Voice daemon of a branch-office box: Microsoft Teams Direct Routing, SIP trunks, analog lines. Not certified by Microsoft."),
		kong.Writers(e.out, e.err),
		kong.Exit(func(code int) { exited = code; panic(errReported) }),
		kong.UsageOnError())
	if err != nil {
		fmt.Fprintln(e.err, "edged:", err)
		return 2
	}
	defer func() { // --help leaves through kong.Exit
		if exited >= 0 && recover() != nil {
			code = exited
		}
	}()
	ctx, err := parser.Parse(args)
	if err != nil {
		fmt.Fprintln(e.err, "edged:", err)
		return 2
	}
	err = ctx.Run(&c, e)
	var faults config.Faults
	switch {
	case err == nil:
		return 0
	case errors.Is(err, errReported):
		return 1
	case errors.As(err, &faults):
		printFaults(e.err, faults)
		return 2
	}
	fmt.Fprintln(e.err, "edged:", err)
	return 1
}

func printFaults(w io.Writer, faults config.Faults) {
	for _, f := range faults {
		fmt.Fprintln(w, f)
	}
	fmt.Fprintf(w, "%d fault(s); nothing was started or changed\n", len(faults))
}

type versionCommand struct{}

// Run prints the version.
func (versionCommand) Run(e env) error {
	_, err := fmt.Fprintln(e.out, "edged", versionText())
	return err
}

// versionText is the release, or the commit that was built.
func versionText() string {
	if version != "" {
		return version
	}
	b, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	commit, dirty := "", ""
	for _, s := range b.Settings {
		switch s.Key {
		case "vcs.revision":
			commit = s.Value[:min(12, len(s.Value))]
		case "vcs.modified":
			if s.Value == "true" {
				dirty = "+changes"
			}
		}
	}
	if commit == "" {
		return "development"
	}
	return commit + dirty
}
