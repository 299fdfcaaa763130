package localloop

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

type module struct {
	Path, Version, Dir string
	Main, Indirect     bool
}

// TestDependenciesAreLicensedForUs reads the licence of every module that is
// linked into edged. Only permissive licences are linked into one binary.
func TestDependenciesAreLicensedForUs(t *testing.T) {
	seen := map[string]bool{}
	for _, m := range linked(t, "./cmd/edged") {
		if m.Main || seen[m.Path] {
			continue
		}
		seen[m.Path] = true
		if kind := licence(m.Dir); kind == "" {
			t.Errorf("%s %s: no permissive licence recognised in %s", m.Path, m.Version, m.Dir)
		}
	}
	if len(seen) < 10 {
		t.Fatalf("only %d modules seen: the test does not see the binary", len(seen))
	}
}

// TestDependenciesHaveAReason holds docs/decisions/dependencies.md to go.mod.
func TestDependenciesHaveAReason(t *testing.T) {
	page, err := os.ReadFile("docs/decisions/dependencies.md")
	if err != nil {
		t.Fatal(err)
	}
	mod, err := os.ReadFile("go.mod")
	if err != nil {
		t.Fatal(err)
	}
	direct := 0
	for _, line := range strings.Split(string(mod), "\n") {
		f := strings.Fields(line)
		if len(f) != 2 || !strings.HasPrefix(line, "\t") {
			continue // a third field is "// indirect"
		}
		direct++
		// The page shortens paths: "pion/srtp/v2", "x/sync".
		short := strings.TrimPrefix(strings.TrimPrefix(f[0], "github.com/"), "golang.org/")
		if !strings.Contains(string(page), short) {
			t.Errorf("%s is required, docs/decisions/dependencies.md does not say why", f[0])
		}
	}
	if direct < 10 {
		t.Fatalf("only %d requirements read from go.mod", direct)
	}
}

// linked lists the modules of all packages that are built into a command.
func linked(t *testing.T, pkg string) []module {
	t.Helper()
	cmd := exec.Command("go", "list", "-deps", "-json=Module", pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var all []module
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p struct{ Module *module }
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		if p.Module != nil {
			all = append(all, *p.Module)
		}
	}
}

// licence names the licence in a module's directory, empty if it is none of the
// permissive ones.
func licence(dir string) string {
	files, _ := filepath.Glob(filepath.Join(dir, "LICEN[CS]E*"))
	more, _ := filepath.Glob(filepath.Join(dir, "COPYING*"))
	for _, f := range append(files, more...) {
		b, err := os.ReadFile(f)
		if err != nil {
			continue
		}
		text := strings.Join(strings.Fields(string(b)), " ")
		switch {
		case strings.Contains(text, "GENERAL PUBLIC LICENSE") || strings.Contains(text, "Mozilla Public License"):
			return ""
		case strings.Contains(text, "Apache License"):
			return "Apache"
		case strings.Contains(text, "Permission is hereby granted, free of charge"):
			return "MIT"
		case strings.Contains(text, "Redistribution and use in source and binary forms"):
			return "BSD"
		}
	}
	return ""
}
