// Command report runs `go test -json` and prints what a person wants to know:
// failures with their output, one line a package, every skipped test with its
// reason, and a closing line with the counts. It exits non-zero when a test
// failed, when a package did not build, or when no test ran.
//
//	go run ./test/report [arguments of go test] packages…
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sort"
	"strings"
)

// event is one line of `go test -json` (cmd/test2json).
type event struct {
	Action     string
	Package    string
	ImportPath string // of build output
	Test       string
	Elapsed    float64
	Output     string
}

// outputLimit bounds what is kept of one test's output.
const outputLimit = 256 << 10

type result struct {
	passed, failed int
	skipped        []string // "package test: reason"
	failures       []string // output of what failed
}

func main() {
	cmd := exec.Command("go", append([]string{"test", "-json"}, os.Args[1:]...)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "report:", err)
		os.Exit(2)
	}
	r := read(out, os.Stdout)
	waitErr := cmd.Wait()
	r.print(os.Stdout)
	if waitErr != nil || r.failed > 0 || r.passed == 0 {
		os.Exit(1)
	}
}

// read consumes the event stream and prints a line for each package.
func read(in io.Reader, progress io.Writer) result {
	var r result
	kept := map[string]*strings.Builder{} // output by package and test
	parents := map[string]bool{}          // tests with subtests: counted by these
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, 4<<20)
	for lines.Scan() {
		var e event
		if json.Unmarshal(lines.Bytes(), &e) != nil {
			fmt.Fprintln(progress, lines.Text())
			continue
		}
		key := e.Package + " " + e.Test
		switch e.Action {
		case "run":
			if i := strings.LastIndexByte(e.Test, '/'); i > 0 {
				parents[e.Package+" "+e.Test[:i]] = true
			}
		case "output", "build-output":
			if e.Action == "build-output" {
				key = e.ImportPath + " "
			}
			b := kept[key]
			if b == nil {
				b = &strings.Builder{}
				kept[key] = b
			}
			if b.Len() < outputLimit {
				b.WriteString(e.Output)
			}
		case "pass", "fail", "skip":
			text := ""
			if b := kept[key]; b != nil {
				text = b.String()
			}
			delete(kept, key)
			if e.Test == "" {
				fmt.Fprintf(progress, "%-5s %6.1fs  %s\n", e.Action, e.Elapsed, e.Package)
				if e.Action == "fail" {
					r.failures = append(r.failures, e.Package+"\n"+text)
				}
				continue
			}
			r.count(e, text, parents[key])
		}
	}
	return r
}

func (r *result) count(e event, text string, parent bool) {
	switch e.Action {
	case "pass":
		if !parent {
			r.passed++
		}
	case "fail":
		if !parent {
			r.failed++
		}
		r.failures = append(r.failures, e.Package+" "+e.Test+"\n"+text)
	case "skip":
		r.skipped = append(r.skipped, fmt.Sprintf("%s %s: %s", e.Package, e.Test, reason(text)))
	}
}

// reason finds what a test said when it skipped.
func reason(text string) string {
	for _, line := range strings.Split(text, "\n") {
		line = strings.TrimSpace(line)
		if i := strings.Index(line, ".go:"); i > 0 {
			if _, said, ok := strings.Cut(line[i+4:], ": "); ok {
				return said
			}
		}
	}
	return "NO REASON GIVEN"
}

func (r *result) print(w io.Writer) {
	for _, f := range r.failures {
		fmt.Fprintf(w, "\n--- failed: %s", f)
	}
	sort.Strings(r.skipped)
	if len(r.skipped) > 0 {
		fmt.Fprintf(w, "\nSkipped, with reasons:\n")
		for _, s := range r.skipped {
			fmt.Fprintln(w, "  "+s)
		}
	}
	fmt.Fprintf(w, "\n%d passed, %d failed, %d skipped\n", r.passed, r.failed, len(r.skipped))
}
