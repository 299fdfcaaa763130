package config

import (
	"encoding"
	"fmt"
	"math"
	"reflect"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2/unstable"
)

// decoder fills a Config from TOML and remembers the line of every key. It is
// our own because the library stops at the first wrong type and forgets where
// values stood, and semantic faults need their lines too.
type decoder struct {
	name   string
	parser unstable.Parser
	starts []int          // offsets of line starts
	lines  map[string]int // key path -> line
	failed map[string]bool
	faults Faults
}

func newDecoder(name string, text []byte) *decoder {
	d := &decoder{name: name, lines: map[string]int{}, failed: map[string]bool{}, starts: []int{0}}
	for i, b := range text {
		if b == '\n' {
			d.starts = append(d.starts, i+1)
		}
	}
	d.parser.Reset(text)
	return d
}

// fault notes a fault at a key path. A key that has failed is reported once,
// and what lies inside it not at all.
func (d *decoder) fault(path, format string, args ...any) {
	if len(d.faults) >= maxFaults {
		return
	}
	for p := path; p != ""; p = outer(p) {
		if d.failed[p] {
			return
		}
	}
	d.failed[path] = true
	d.faults = append(d.faults, Fault{File: d.name, Line: d.line(path), Key: path, Text: fmt.Sprintf(format, args...)})
}

// line finds the line of a key, or of the nearest table around it that is in
// the file.
func (d *decoder) line(path string) int {
	for path != "" {
		if n, ok := d.lines[path]; ok {
			return n
		}
		path = outer(path)
	}
	return 0
}

// outer is the path of what a key lies in. A quoted name with dots takes a few
// steps more, which do no harm.
func outer(path string) string { return path[:max(strings.LastIndexAny(path, ".["), 0)] }

// given reports whether the key stands in the file.
func (d *decoder) given(path string) bool { return d.lines[path] > 0 }

// lineOf returns the line of a node, or that of what is around it if the library did not keep it.
func (d *decoder) lineOf(n *unstable.Node, around int) int {
	if n == nil || n.Raw.Length == 0 {
		return around
	}
	return sort.SearchInts(d.starts, int(n.Raw.Offset)+1)
}

// place is a value of the Config with its key path. An invalid value stands for
// a part of the file that was reported and is passed over.
type place struct {
	v    reflect.Value
	path string
}

// decode reads the whole document.
func (d *decoder) decode(c *Config) {
	root := place{v: reflect.ValueOf(c).Elem()}
	table := root
	for d.parser.NextExpression() {
		n := d.parser.Expression()
		switch n.Kind {
		case unstable.Table, unstable.ArrayTable:
			table = d.table(root, n)
		case unstable.KeyValue:
			d.keyValue(table, n, 0)
		}
	}
}

// table finds the place that a [table] or [[table]] header opens.
func (d *decoder) table(at place, n *unstable.Node) place {
	for keys := n.Key(); keys.Next() && at.v.IsValid(); {
		key := keys.Node()
		last := keys.IsLast()
		line := d.lineOf(key, 0)
		at = d.step(at, string(key.Data), line)
		if !at.v.IsValid() {
			return at
		}
		if at.v.Kind() != reflect.Slice || !isTable(at.v.Type().Elem()) {
			if last && n.Kind == unstable.ArrayTable && isTable(at.v.Type()) {
				d.fault(at.path, "is one table: write [%s]", bare(at.path))
				return place{}
			}
			if !isTable(at.v.Type()) && at.v.Kind() != reflect.Map {
				d.fault(at.path, "is a table, want %s", wanted(at.v.Type()))
				return place{}
			}
			continue
		}
		switch {
		case last && n.Kind == unstable.ArrayTable:
			at = d.grow(at, line)
		case at.v.Len() == 0 || last:
			d.fault(at.path, "is a list of tables: write [[%s]]", bare(at.path))
			return place{}
		default:
			i := at.v.Len() - 1
			at = place{at.v.Index(i), fmt.Sprintf("%s[%d]", at.path, i)}
		}
	}
	return at
}

// grow appends an element with its defaults to a list of tables.
func (d *decoder) grow(at place, line int) place {
	i := at.v.Len()
	at.v.Grow(1)
	at.v.SetLen(i + 1)
	e := place{at.v.Index(i), fmt.Sprintf("%s[%d]", at.path, i)}
	if s, ok := e.v.Addr().Interface().(interface{ setDefaults() }); ok {
		s.setDefaults()
	}
	d.lines[e.path] = line
	return e
}

// step goes from a table to one of its keys.
func (d *decoder) step(at place, key string, line int) place {
	next := place{path: join(at.path, key)}
	if _, known := d.lines[next.path]; !known {
		d.lines[next.path] = line
	}
	switch {
	case isTable(at.v.Type()):
		for i := range at.v.NumField() {
			if at.v.Type().Field(i).Tag.Get("toml") == key && key != "" && key != "-" {
				next.v = at.v.Field(i)
				return next
			}
		}
		d.fault(next.path, "unknown key%s", suggest(key, at.v.Type()))
	case at.v.Kind() == reflect.Map:
		d.fault(next.path, "a name with dots must stand in quotes")
	default:
		d.fault(next.path, "%s takes %s and has no keys", at.path, wanted(at.v.Type()))
	}
	return place{}
}

// keyValue reads key = value inside a table.
func (d *decoder) keyValue(at place, n *unstable.Node, around int) {
	if !at.v.IsValid() {
		return
	}
	line := around
	for keys := n.Key(); keys.Next(); {
		key := keys.Node()
		line = d.lineOf(key, around)
		if at.v.Kind() == reflect.Map {
			d.mapEntry(at, string(key.Data), keys.IsLast(), n.Value(), line)
			return
		}
		if at = d.step(at, string(key.Data), line); !at.v.IsValid() {
			return
		}
	}
	d.value(at, n.Value(), line)
}

func (d *decoder) mapEntry(at place, key string, last bool, n *unstable.Node, line int) {
	path := join(at.path, key)
	d.lines[path] = line
	if !last {
		d.fault(path, "a name with dots must stand in quotes")
		return
	}
	e := reflect.New(at.v.Type().Elem()).Elem()
	d.value(place{e, path}, n, line)
	if at.v.IsNil() {
		at.v.Set(reflect.MakeMap(at.v.Type()))
	}
	at.v.SetMapIndex(reflect.ValueOf(key), e)
}

var textType = reflect.TypeFor[encoding.TextUnmarshaler]()

// isTable reports whether a Go type stands for a table; addresses and the like
// are structs too, but stand for strings.
func isTable(t reflect.Type) bool {
	return t.Kind() == reflect.Struct && !reflect.PointerTo(t).Implements(textType)
}

var durationType = reflect.TypeFor[time.Duration]()

// value sets a place from a TOML value.
func (d *decoder) value(at place, n *unstable.Node, line int) {
	if line = d.lineOf(n, line); !d.given(at.path) {
		d.lines[at.path] = line
	}
	t := at.v.Type()
	if u, ok := at.v.Addr().Interface().(encoding.TextUnmarshaler); ok {
		// A number stands for itself where the Go type is a number (DSCP).
		if n.Kind != unstable.String && (n.Kind != unstable.Integer || t.Kind() != reflect.Uint8) {
			d.fault(at.path, "is %s, want a string", found(n.Kind))
			return
		}
		if err := u.UnmarshalText(n.Data); err != nil {
			d.fault(at.path, "%s", textFault(t, string(n.Data), err))
		}
		return
	}
	if t == durationType {
		if n.Kind != unstable.String {
			d.fault(at.path, "is %s, want a string with a unit such as \"20ms\" or \"60s\"", found(n.Kind))
			return
		}
		v, err := time.ParseDuration(string(n.Data))
		if err != nil {
			d.fault(at.path, "%q is no time such as \"20ms\", \"60s\" or \"5m\"", clip(string(n.Data)))
			return
		}
		at.v.SetInt(int64(v))
		return
	}
	switch {
	case t.Kind() == reflect.String && n.Kind == unstable.String:
		at.v.SetString(string(n.Data))
	case t.Kind() == reflect.Bool && n.Kind == unstable.Bool:
		at.v.SetBool(len(n.Data) > 0 && n.Data[0] == 't')
	case t.Kind() == reflect.Int && n.Kind == unstable.Integer:
		v, err := strconv.ParseInt(number(n.Data), 0, 64)
		if err != nil || v > math.MaxInt32 || v < math.MinInt32 {
			d.fault(at.path, "%s is too large", clip(string(n.Data)))
			return
		}
		at.v.SetInt(v)
	case t.Kind() == reflect.Float64 && (n.Kind == unstable.Float || n.Kind == unstable.Integer):
		v, err := strconv.ParseFloat(number(n.Data), 64)
		if err != nil || math.IsNaN(v) || math.IsInf(v, 0) {
			d.fault(at.path, "%s is no number", clip(string(n.Data)))
			return
		}
		at.v.SetFloat(v)
	case t.Kind() == reflect.Slice && n.Kind == unstable.Array:
		d.list(at, n, line)
	case (isTable(t) || t.Kind() == reflect.Map) && n.Kind == unstable.InlineTable:
		for it := n.Children(); it.Next(); {
			if kv := it.Node(); kv.Kind == unstable.KeyValue {
				d.keyValue(at, kv, line)
			}
		}
	default:
		d.fault(at.path, "is %s, want %s", found(n.Kind), wanted(t))
	}
}

// list replaces a list; what stood there by default goes.
func (d *decoder) list(at place, n *unstable.Node, line int) {
	at.v.Set(reflect.MakeSlice(at.v.Type(), 0, 4))
	for it := n.Children(); it.Next(); {
		if e := it.Node(); e.Kind != unstable.Comment {
			d.value(d.grow(at, d.lineOf(e, line)), e, line)
		}
	}
}

func join(path, key string) string {
	if key == "" || strings.ContainsAny(key, ". []\"\n\t") {
		key = strconv.Quote(clip(key))
	}
	if path == "" {
		return key
	}
	return path + "." + key
}

func joinKey(keys []string) string {
	path := ""
	for _, k := range keys {
		path = join(path, k)
	}
	return path
}

// bare is a path as a table header writes it.
func bare(path string) string {
	var b strings.Builder
	for {
		before, rest, ok := strings.Cut(path, "[")
		b.WriteString(before)
		if !ok {
			return b.String()
		}
		_, path, _ = strings.Cut(rest, "]")
	}
}

func number(text []byte) string { return strings.ReplaceAll(string(text), "_", "") }

func clip(s string) string {
	const most = 120
	if len(s) > most {
		return strings.ToValidUTF8(s[:most], "") + "…"
	}
	return s
}

// found says in words what stands in the file.
func found(k unstable.Kind) string {
	switch k {
	case unstable.String:
		return "a string"
	case unstable.Bool:
		return "true or false"
	case unstable.Float:
		return "a number with a fraction"
	case unstable.Integer:
		return "a number"
	case unstable.Array:
		return "a list"
	case unstable.InlineTable:
		return "a table"
	}
	return "a date or time"
}

// wanted says in words what a Go type takes.
func wanted(t reflect.Type) string {
	switch {
	case t == durationType, t.Kind() == reflect.String, reflect.PointerTo(t).Implements(textType):
		return "a string"
	case t.Kind() == reflect.Bool:
		return "true or false"
	case t.Kind() == reflect.Int:
		return "a whole number"
	case t.Kind() == reflect.Float64:
		return "a number"
	case t.Kind() == reflect.Slice && isTable(t.Elem()):
		return "a list of tables"
	case t.Kind() == reflect.Slice:
		return "a list"
	}
	return "a table"
}

// textFault says what form was expected; the library's own texts name functions.
func textFault(t reflect.Type, text string, err error) string {
	switch t.String() {
	case "netip.Addr":
		return fmt.Sprintf("%q is no IP address", clip(text))
	case "netip.AddrPort":
		return fmt.Sprintf("%q is no IP address with port such as \"0.0.0.0:5061\"", clip(text))
	case "netip.Prefix":
		return fmt.Sprintf("%q is no address range such as \"192.0.2.0/24\"", clip(text))
	}
	return clip(err.Error())
}

// suggest names the known key that is nearest to an unknown one.
func suggest(key string, t reflect.Type) string {
	best, least := "", 3 // more than two edits is another word
	for i := range t.NumField() {
		if name := t.Field(i).Tag.Get("toml"); name != "-" {
			if n := edits(clip(key), name); n < least && n < len(name) {
				best, least = name, n
			}
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf("; is %q meant?", best)
}

// edits is the Levenshtein distance.
func edits(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, diagonal+1, row[j]+1)
		}
	}
	return row[len(b)]
}
