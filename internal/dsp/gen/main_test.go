package main

import (
	"bytes"
	"os"
	"testing"
)

func TestTableIsUpToDate(t *testing.T) {
	source, err := os.ReadFile("call-progress-tones.json")
	if err != nil {
		t.Fatal(err)
	}
	want, err := Generate(source)
	if err != nil {
		t.Fatal(err)
	}
	have, err := os.ReadFile("../countries_table.go")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(have, want) {
		t.Error("countries_table.go is not what gen makes: run go generate ./internal/dsp")
	}
}
