// Command initrd packs the kernel laboratory's initial file system: a static
// init and the kernel modules it asks for, each with those that it depends on, in
// the order of loading. It needs neither depmod nor cpio on the machine.
//
//	initrd -init guest -modules lib/modules/6.1.0-56-amd64 -out initrd.cpio 8021q veth …
//
// A module that is built into the kernel is passed over. Modules must not be
// compressed (Debian 12 ships them so).
package main

import (
	"bytes"
	"debug/elf"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

func main() {
	initPath := flag.String("init", "", "static executable that becomes /init")
	dir := flag.String("modules", "", "unpacked lib/modules/VERSION")
	out := flag.String("out", "", "file to write")
	flag.Parse()
	if err := pack(*initPath, *dir, *out, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "initrd:", err)
		os.Exit(1)
	}
}

func pack(initPath, dir, out string, names []string) error {
	image, err := os.ReadFile(initPath)
	if err != nil {
		return err
	}
	modules, err := closure(dir, names)
	if err != nil {
		return err
	}
	var a archive
	a.dir("dev")
	a.dir("modules")
	a.file("init", 0o755, image)
	for i, path := range modules {
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		a.file(fmt.Sprintf("modules/%03d-%s", i, filepath.Base(path)), 0o644, b)
	}
	return os.WriteFile(out, a.finish(), 0o644)
}

// closure returns the files of the modules named and of what they depend on,
// each after its dependencies.
func closure(dir string, names []string) ([]string, error) {
	files := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if name, ok := strings.CutSuffix(filepath.Base(path), ".ko"); ok && err == nil && !d.IsDir() {
			files[canonical(name)] = path
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	builtin, err := os.ReadFile(filepath.Join(dir, "modules.builtin"))
	if err != nil {
		return nil, err
	}
	inside := map[string]bool{}
	for line := range strings.Lines(string(builtin)) {
		inside[canonical(strings.TrimSuffix(filepath.Base(strings.TrimSpace(line)), ".ko"))] = true
	}
	var order []string
	seen := map[string]bool{}
	var add func(name, of string) error
	add = func(name, of string) error {
		name = canonical(name)
		if seen[name] || inside[name] {
			return nil
		}
		seen[name] = true
		path, ok := files[name]
		if !ok {
			return fmt.Errorf("module %s (for %s) is neither in %s nor in the kernel", name, of, dir)
		}
		depends, err := dependencies(path)
		if err != nil {
			return err
		}
		for _, d := range depends {
			if err := add(d, name); err != nil {
				return err
			}
		}
		order = append(order, path)
		return nil
	}
	for _, name := range names {
		if err := add(name, "the laboratory"); err != nil {
			return nil, err
		}
	}
	return order, nil
}

// canonical is a module's name as the kernel compares it.
func canonical(name string) string { return strings.ReplaceAll(name, "-", "_") }

// dependencies reads the "depends=" entry of a module's .modinfo section.
func dependencies(path string) ([]string, error) {
	f, err := elf.Open(path)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	defer f.Close()
	section := f.Section(".modinfo")
	if section == nil {
		return nil, fmt.Errorf("%s: no .modinfo", path)
	}
	data, err := section.Data()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	for entry := range bytes.SplitSeq(data, []byte{0}) {
		if list, ok := bytes.CutPrefix(entry, []byte("depends=")); ok && len(list) > 0 {
			return strings.Split(string(list), ","), nil
		}
	}
	return nil, nil
}

// archive is a cpio archive in the "newc" form that the kernel unpacks
// (Documentation/driver-api/early-userspace/buffer-format.rst).
type archive struct {
	b     bytes.Buffer
	inode int
}

func (a *archive) dir(name string)                      { a.entry(name, 0o040755, nil) }
func (a *archive) file(name string, mode int, b []byte) { a.entry(name, 0o100000|mode, b) }
func (a *archive) finish() []byte                       { a.entry("TRAILER!!!", 0, nil); return a.b.Bytes() }
func (a *archive) entry(name string, mode int, b []byte) {
	a.inode++
	fmt.Fprintf(&a.b, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x",
		a.inode, mode, 0, 0, 1, 0, len(b), 0, 0, 0, 0, len(name)+1, 0)
	a.b.WriteString(name)
	a.b.WriteByte(0)
	a.pad()
	a.b.Write(b)
	a.pad()
}

func (a *archive) pad() {
	for a.b.Len()%4 != 0 {
		a.b.WriteByte(0)
	}
}
