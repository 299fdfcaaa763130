package config

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"
)

// TestDocsMatchTheTypes generates docs/config.md from the types, their comments
// and their defaults, and fails when the page is stale.
func TestDocsMatchTheTypes(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "config.go", nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	w := docs{t: t, types: map[string]*ast.TypeSpec{}, about: map[string]string{}}
	for _, decl := range file.Decls {
		g, ok := decl.(*ast.GenDecl)
		if !ok || g.Tok != token.TYPE {
			continue
		}
		for _, s := range g.Specs {
			ts := s.(*ast.TypeSpec)
			w.types[ts.Name.Name] = ts
			w.about[ts.Name.Name] = prose(g.Doc.Text())
		}
	}
	w.WriteString(`# The configuration file

Generated from the types of package config by ` + "`go test ./internal/config -update`" + `; do not edit.

The file is TOML 1.0, UTF-8, at most 1 MiB. Unknown keys, wrong types and broken references are refused with file, line and
key before anything starts; ` + "`edged check FILE`" + ` prints all faults. Times are strings with a unit ("20ms", "60s", "5m").
Names are 1 to 63 letters, digits and '-'; trunks and lines share one space of names. A working example is
` + "`internal/config/testdata/good/branch.toml`" + `.
`)
	c := &Config{}
	c.setDefaults()
	w.table("", reflect.ValueOf(c).Elem(), false)
	w.WriteString(`
## Patterns in routes

| sign | stands for |
|---|---|
| digits, + (first only), #, * (not last) | themselves |
| ? | any digit |
| [1-4] [05#] | one of a set |
| * at the end | any rest, nothing included; write [*] for the sign itself |

The pattern that pins down most digits wins, then the one without open end, then the longer one, then file order. Routes see
E.164 numbers with '+' where the number could be completed, else what was dialled.
`)
	golden(t, "../../docs/config.md", w.String())
}

type docs struct {
	bytes.Buffer
	t     *testing.T
	types map[string]*ast.TypeSpec
	about map[string]string
}

// table writes the section of one struct and then those inside it.
func (w *docs) table(path string, v reflect.Value, list bool) {
	typ := v.Type()
	spec := w.types[typ.Name()]
	if spec == nil {
		w.t.Fatalf("%s is not declared in config.go", typ.Name())
	}
	if path != "" {
		if list {
			fmt.Fprintf(w, "\n## `[[%s]]`\n\n", path)
		} else {
			fmt.Fprintf(w, "\n## `[%s]`\n\n", path)
		}
		about := w.about[typ.Name()]
		about = plain(about, typ.Name())
		fmt.Fprintf(w, "%s\n\n| key | type | default | meaning |\n|---|---|---|---|\n", upperFirst(about))
	}
	comments := map[string]string{}
	for _, f := range spec.Type.(*ast.StructType).Fields.List {
		for _, n := range f.Names {
			comments[n.Name] = prose(f.Doc.Text() + " " + f.Comment.Text())
		}
	}
	var inner []int
	for i := range typ.NumField() {
		f := typ.Field(i)
		key := f.Tag.Get("toml")
		switch {
		case key == "-":
			continue
		case key == "":
			w.t.Errorf("%s.%s has no toml tag", typ.Name(), f.Name)
		case isTable(f.Type) || f.Type.Kind() == reflect.Slice && isTable(f.Type.Elem()):
			inner = append(inner, i)
			if path == "" {
				continue
			}
			fmt.Fprintf(w, "| %s | table | | see `%s.%s` |\n", key, path, key)
			continue
		}
		meaning := plain(comments[f.Name], f.Name)
		if meaning == "" {
			w.t.Errorf("%s.%s has no comment for docs/config.md", typ.Name(), f.Name)
		}
		fmt.Fprintf(w, "| %s | %s | %s | %s |\n", key, typeName(f.Type), byDefault(v.Field(i)), upperFirst(strings.ReplaceAll(meaning, "|", "\\|")))
	}
	for _, i := range inner {
		f := typ.Field(i)
		sub := f.Tag.Get("toml")
		if path != "" {
			sub = path + "." + sub
		}
		if f.Type.Kind() != reflect.Slice {
			w.table(sub, v.Field(i), false)
			continue
		}
		e := reflect.New(f.Type.Elem())
		if s, ok := e.Interface().(interface{ setDefaults() }); ok {
			s.setDefaults()
		}
		w.table(sub, e.Elem(), true)
	}
}

func typeName(t reflect.Type) string {
	switch t.String() {
	case "netip.Addr":
		return "address"
	case "netip.AddrPort":
		return "address:port"
	case "netip.Prefix":
		return "address range"
	case "time.Duration":
		return "time"
	case "config.PortRange":
		return "port range"
	case "config.DSCP":
		return "DSCP"
	case "int":
		return "whole number"
	case "float64":
		return "number"
	case "bool":
		return "true, false"
	}
	switch t.Kind() {
	case reflect.Slice:
		return "list of " + typeName(t.Elem())
	case reflect.Map:
		return "table of " + typeName(t.Elem())
	}
	return t.Kind().String()
}

// byDefault writes a default as the file would.
func byDefault(v reflect.Value) string {
	if v.IsZero() {
		return ""
	}
	switch x := v.Interface().(type) {
	case string:
		return fmt.Sprintf("`%q`", x)
	case []netip.Prefix:
		var list []string
		for _, p := range x {
			list = append(list, p.String())
		}
		return byDefault(reflect.ValueOf(list))
	case []string:
		return "`" + strings.Join(x, "`, `") + "`"
	case time.Duration:
		s := x.String()
		if strings.HasSuffix(s, "m0s") {
			s = strings.TrimSuffix(s, "0s")
		}
		return "`" + s + "`"
	case fmt.Stringer:
		return "`" + x.String() + "`"
	}
	return fmt.Sprintf("`%v`", v.Interface())
}

// plain turns "Source is the address" into "The address".
func plain(comment, name string) string {
	text, ok := strings.CutPrefix(comment, name+" ")
	for _, verb := range []string{"is ", "are "} {
		if rest, cut := strings.CutPrefix(text, verb); ok && cut {
			return upperFirst(rest)
		}
	}
	return text
}

// prose joins the lines of a comment.
func prose(s string) string { return strings.Join(strings.Fields(s), " ") }

func upperFirst(s string) string {
	if s == "" || s[0] < 'a' || s[0] > 'z' {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}
