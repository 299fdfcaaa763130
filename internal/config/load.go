package config

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode/utf8"

	"github.com/pelletier/go-toml/v2"
)

// MaxFile is the greatest size of a configuration file in bytes.
const MaxFile = 1 << 20

// maxFaults bounds what is reported: after that many, a file is of another kind.
const maxFaults = 200

// Load reads and checks the file. An error of type Faults says all that is
// wrong with it; any other error says that it could not be read.
func Load(path string) (*Config, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, MaxFile+1))
	if err != nil {
		return nil, fmt.Errorf("read configuration %s: %w", path, err)
	}
	return Parse(path, text)
}

// Parse checks the text of a configuration file; name stands for the file in
// faults. It returns either a complete configuration or an error of type Faults.
func Parse(name string, text []byte) (*Config, error) {
	if len(text) > MaxFile {
		return nil, Faults{{File: name, Text: fmt.Sprintf("larger than %d bytes", MaxFile)}}
	}
	if !utf8.Valid(text) {
		return nil, Faults{{File: name, Text: "not UTF-8 text"}}
	}
	// The rules of TOML itself (no key twice, no table defined twice) are the
	// library's; a file that breaks them has no meaning to look into.
	var document map[string]any
	if err := toml.Unmarshal(text, &document); err != nil {
		fault := Fault{File: name, Text: strings.TrimPrefix(err.Error(), "toml: ")}
		var de *toml.DecodeError
		if errors.As(err, &de) {
			fault.Line, _ = de.Position()
			fault.Key = joinKey(de.Key())
		}
		return nil, Faults{fault}
	}
	d := newDecoder(name, text)
	c := &Config{Path: name}
	c.setDefaults()
	d.decode(c)
	c.complete()
	v := checker{decoder: d, c: c}
	v.check()
	if len(d.faults) > 0 {
		d.faults.sort()
		return nil, d.faults
	}
	return c, nil
}
