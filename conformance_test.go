package localloop

import (
	"bytes"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite docs/conformance.md")

const conformance = "docs/conformance.md"

// statement is a row of the tables of docs/teams.md and docs/lines.md.
type statement struct {
	id    string // "C-76"
	level string
	text  string
	left  string // "", "2", "2: a part", "left out: the reason"
}

// proof is what carries a statement's number.
type proof struct {
	tests    []string // "sip.TestC40CancelBeforeAnswer"
	measured bool     // benchmarks only
	watched  bool     // a rule of the simulated Teams in every call with it
}

// doubles are packages whose tests prove the double, not the product.
var doubles = []string{"internal/sip/siptest", "internal/media/mediatest", "internal/analog/analogtest"}

// teamsDouble notes breaches of the rules, by number, while it is called.
const teamsDouble = "internal/sip/siptest"

// TestConformance holds docs/conformance.md to the tables and the tree: every
// statement has a test that carries its number or says what is left, no number
// is cited that the tables lack.
func TestConformance(t *testing.T) {
	var all []statement
	for _, doc := range []struct{ file, letter string }{{"docs/teams.md", "C"}, {"docs/lines.md", "A"}} {
		text, err := os.ReadFile(doc.file)
		if err != nil {
			t.Fatal(err)
		}
		rows, err := statements(string(text), doc.letter)
		if err != nil {
			t.Fatalf("%s: %v", doc.file, err)
		}
		all = append(all, rows...)
	}
	known := map[string]bool{}
	for _, s := range all {
		known[s.id] = true
	}
	proofs := map[string]*proof{}
	files := 0
	err := filepath.WalkDir(".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && name != "." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "build"):
			return fs.SkipDir
		case d.IsDir() || name == conformance || !slices.Contains([]string{".go", ".md"}, path.Ext(name)):
			return nil
		}
		text, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		files++
		// This file shows the forms, good and bad ones.
		if name != "conformance_test.go" {
			for _, id := range cited(string(text)) {
				if !known[id] {
					t.Errorf("%s cites %s, which neither docs/teams.md nor docs/lines.md has", name, id)
				}
			}
		}
		if path.Ext(name) != ".go" || name == "conformance_test.go" {
			return nil
		}
		carried, err := carriers(name, text)
		if err != nil {
			return err
		}
		for _, c := range carried {
			if !known[c.id] {
				t.Errorf("%s: %s carries %s, which the tables do not have", name, c.by, c.id)
				continue
			}
			p := proofs[c.id]
			if p == nil {
				p = &proof{measured: true}
				proofs[c.id] = p
			}
			switch {
			case c.watched:
				p.watched, p.measured = true, false
			case !slices.Contains(p.tests, c.by):
				p.tests = append(p.tests, c.by)
				p.measured = p.measured && strings.Contains(c.by, ".Benchmark")
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if files < 200 || len(all) != 195 {
		t.Fatalf("%d files and %d statements seen: the test does not see the tree", files, len(all))
	}
	page, faults := table(all, proofs)
	for _, f := range faults {
		t.Error(f)
	}
	if *update {
		if err := os.WriteFile(conformance, page, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if old, err := os.ReadFile(conformance); err != nil || !bytes.Equal(old, page) {
		t.Errorf("%s is stale (%v): run make docs", conformance, err)
	}
}

// TestConformanceReadsNumbers keeps the scanner honest.
func TestConformanceReadsNumbers(t *testing.T) {
	for name, want := range map[string]string{
		"TestC076RekeyResetsROC":                           "C-76",
		"TestC39CausesBecomeStatus":                        "C-39",
		"TestA02DigitIsHeard":                              "A-2",
		"TestC54C55SilentEarlyMediaKeepsRingback":          "C-54 C-55",
		"TestA22SplashIsNoCallAndA23WithoutCallerID":       "A-22 A-23",
		"TestDoubleA37CallsThroughDamage":                  "A-37",
		"TestC30A403IsAnAlarmAndTheOthersGoOn":             "C-30",
		"TestC38Microsoft183InTime":                        "C-38",
		"BenchmarkC126":                                    "C-126",
		"FuzzC151Messages":                                 "C-151",
		"TestRFC4475Verdicts":                              "",
		"TestG711DecodesTheQuantizedValuesOfTheTables":     "",
		"TestCRCIsX25":                                     "",
		"TestC112C113C124ChecksDecideWhoSpeaksAndWhereVoi": "C-112 C-113 C-124",
	} {
		if got := strings.Join(inName(name), " "); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if got := strings.Join(cited("C-26, A-1 … A-40 (C-107…C-126), EN 300 659-1, QC-5, C-4a, AC-3"), " "); got != "C-26 A-1 A-40 C-107 C-126" {
		t.Errorf("cited: %q", got)
	}
	rows, err := statements("| C-1 | M | a \\| b | |\n|---|\n| no. | x |\n| C-2 | S | c | 2: d |\n", "C")
	if err != nil || len(rows) != 2 || rows[0] != (statement{"C-1", "M", `a \| b`, ""}) || rows[1].left != "2: d" {
		t.Errorf("%+v %v", rows, err)
	}
	for _, bad := range []string{"| C-2 | M | a | |\n", "| C-1 | M | a |\n", "| C-1 | Z | a | |\n", "| C-1 | M | a | later |\n"} {
		if _, err := statements(bad, "C"); err == nil {
			t.Errorf("accepted %q", bad)
		}
	}
	_, faults := table([]statement{{"C-1", "M", "a", ""}, {"C-2", "M", "b", "2: half"}, {"C-3", "M", "c", "2"}, {"C-4", "M", "d", ""}},
		map[string]*proof{"C-4": {tests: []string{"sip.TestC4"}}})
	if len(faults) != 2 {
		t.Errorf("faults %q: C-1 has neither test nor step, C-2 is said to be half proved", faults)
	}
}

var (
	leftForm  = regexp.MustCompile(`^([2-8](: .+)?|left out: .+)?$`)
	citedForm = regexp.MustCompile(`\b[CA]-(\d+)\b`)
	nameForm  = regexp.MustCompile(`[CA]\d+`)
	ruleForm  = regexp.MustCompile(`^C-\d+$`)
)

// statements reads the rows "| C-1 | level | text | left |" of a page. They count
// from 1 without a gap.
func statements(page, letter string) ([]statement, error) {
	var out []statement
	for line := range strings.Lines(page) {
		if !strings.HasPrefix(line, "| "+letter+"-") {
			continue
		}
		// "\|" is a bar within a cell.
		cells := strings.Split(strings.ReplaceAll(strings.TrimSpace(line), `\|`, "\x00"), "|")
		if len(cells) != 6 {
			return nil, fmt.Errorf("%d cells, want 4: %s", len(cells)-2, line)
		}
		for i, c := range cells {
			cells[i] = strings.TrimSpace(strings.ReplaceAll(c, "\x00", `\|`))
		}
		s := statement{cells[1], cells[2], cells[3], cells[4]}
		switch {
		case s.id != fmt.Sprintf("%s-%d", letter, len(out)+1):
			return nil, fmt.Errorf("%s after %d rows", s.id, len(out))
		case !slices.Contains([]string{"M", "S", "E", "M/E"}, s.level):
			return nil, fmt.Errorf("%s: level %q", s.id, s.level)
		case s.text == "" || !leftForm.MatchString(s.left):
			return nil, fmt.Errorf("%s: text %q, left %q", s.id, s.text, s.left)
		}
		out = append(out, s)
	}
	return out, nil
}

// cited finds numbers as comments and pages write them, "C-26". A range names
// its ends.
func cited(text string) []string {
	var out []string
	for _, at := range citedForm.FindAllStringIndex(text, -1) {
		if at[0] > 0 && text[at[0]-1] == '-' { // part of a longer designation
			continue
		}
		if id := text[at[0]:at[1]]; !slices.Contains(out, id) {
			out = append(out, id)
		}
	}
	return out
}

// inName finds the numbers in the name of a test. A capital before the letter
// makes it part of a word (RFC4475); an A with three digits is an article before
// a status ("A403").
func inName(name string) []string {
	var out []string
	for _, at := range nameForm.FindAllStringIndex(name, -1) {
		digits := name[at[0]+1 : at[1]]
		if at[0] == 0 || 'A' <= name[at[0]-1] && name[at[0]-1] <= 'Z' || name[at[0]] == 'A' && len(digits) > 2 || len(digits) > 3 {
			continue
		}
		n, err := strconv.Atoi(digits)
		if err != nil {
			continue
		}
		out = append(out, fmt.Sprintf("%c-%d", name[at[0]], n))
	}
	return out
}

// carrier is something in a file that carries a statement's number.
type carrier struct {
	id, by  string
	watched bool
}

// carriers reads a Go file: tests, fuzz tests and benchmarks by their names and
// the comments above them, and in the simulated Teams the rules that it notes.
func carriers(name string, text []byte) ([]carrier, error) {
	dir := path.Dir(filepath.ToSlash(name))
	isTest := strings.HasSuffix(name, "_test.go")
	if isTest == slices.Contains(doubles, dir) || !isTest && dir != teamsDouble {
		return nil, nil
	}
	f, err := parser.ParseFile(token.NewFileSet(), name, text, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	var out []carrier
	if !isTest {
		ast.Inspect(f, func(n ast.Node) bool {
			if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING {
				if s, err := strconv.Unquote(lit.Value); err == nil && ruleForm.MatchString(s) {
					out = append(out, carrier{id: s, by: dir, watched: true})
				}
			}
			return true
		})
		return out, nil
	}
	for _, d := range f.Decls {
		fn, ok := d.(*ast.FuncDecl)
		if !ok || fn.Recv != nil || !slices.ContainsFunc([]string{"Test", "Fuzz", "Benchmark"}, func(p string) bool { return strings.HasPrefix(fn.Name.Name, p) }) {
			continue
		}
		for _, id := range append(inName(fn.Name.Name), cited(fn.Doc.Text())...) {
			out = append(out, carrier{id: id, by: path.Base(dir) + "." + fn.Name.Name})
		}
	}
	return out, nil
}

// table writes the page, and what is wrong with the statements.
func table(all []statement, proofs map[string]*proof) (page []byte, faults []string) {
	var b bytes.Buffer
	b.WriteString(`# Conformance

Generated by ` + "`make docs`" + ` from the tables of [teams.md](teams.md) (C) and [lines.md](lines.md) (A) and from the tests; do not edit. A test carries a
statement's number in its name (` + "`TestC76…`" + `) or in the comment above it. *Double*: the simulated Teams watches this rule in every call with it. Tests of the
simulated sides themselves prove nothing about the product and are not listed. All proofs are against simulated peers: nothing here has run against a real
tenant or on a real line yet. Level: M documented, S inferred or observed, E our own rule.

`)
	var counts [5]int
	var rows bytes.Buffer
	for _, s := range all {
		p := proofs[s.id]
		if p == nil {
			p = &proof{}
		}
		step, part, _ := strings.Cut(s.left, ": ")
		have := len(p.tests) > 0 || p.watched
		var state string
		switch {
		case step == "left out":
			counts[4]++
			state = s.left
		case s.left == "" && !have:
			faults = append(faults, fmt.Sprintf("%s: no test carries its number, and its row does not say which step brings one", s.id))
			continue
		case s.left == "" && p.measured:
			counts[1]++
			state = "measured by `make bench`"
		case s.left == "":
			counts[0]++
			state = "proved"
		case have:
			counts[2]++
			state = "partly; step " + step
			if part != "" {
				state += " brings: " + part
			}
		case part != "":
			faults = append(faults, fmt.Sprintf("%s: only %q is said to be left, but no test carries its number", s.id, part))
			continue
		default:
			counts[3]++
			state = "not yet; step " + step
		}
		by := make([]string, 0, len(p.tests)+1)
		for _, name := range slices.Sorted(slices.Values(p.tests)) {
			by = append(by, "`"+name+"`")
		}
		if p.watched {
			by = append(by, "double")
		}
		fmt.Fprintf(&rows, "| %s | %s | %s | %s | %s |\n", s.id, s.level, s.text, strings.Join(by, ", "), state)
	}
	fmt.Fprintf(&b, "%d statements: %d proved, %d measured, %d partly, %d not yet, %d left out.\n\n", len(all), counts[0], counts[1], counts[2], counts[3], counts[4])
	b.WriteString("| no. | level | statement | tests | state |\n|---|---|---|---|---|\n")
	b.Write(rows.Bytes())
	return b.Bytes(), faults
}
