package main

import (
	"strings"
	"testing"
)

func TestReportCountsLeavesAndKeepsReasons(t *testing.T) {
	stream := `{"Action":"run","Package":"p","Test":"TestA"}
{"Action":"run","Package":"p","Test":"TestA/one"}
{"Action":"output","Package":"p","Test":"TestA/one","Output":"    a_test.go:7: broken: 3\n"}
{"Action":"fail","Package":"p","Test":"TestA/one"}
{"Action":"fail","Package":"p","Test":"TestA"}
{"Action":"run","Package":"p","Test":"TestB"}
{"Action":"output","Package":"p","Test":"TestB","Output":"    b_test.go:9: needs root: network namespaces\n"}
{"Action":"skip","Package":"p","Test":"TestB"}
{"Action":"run","Package":"p","Test":"TestC"}
{"Action":"pass","Package":"p","Test":"TestC"}
{"Action":"fail","Package":"p","Elapsed":1.5}
{"Action":"build-output","ImportPath":"q","Output":"q.go:1: syntax error\n"}
{"Action":"fail","Package":"q"}
`
	var progress strings.Builder
	r := read(strings.NewReader(stream), &progress)
	if r.passed != 1 || r.failed != 1 || len(r.skipped) != 1 {
		t.Fatalf("%d passed, %d failed, skipped %q", r.passed, r.failed, r.skipped)
	}
	if want := "p TestB: needs root: network namespaces"; r.skipped[0] != want {
		t.Errorf("skip %q, want %q", r.skipped[0], want)
	}
	if all := strings.Join(r.failures, "\n"); !strings.Contains(all, "broken: 3") || !strings.Contains(all, "syntax error") {
		t.Errorf("failures lack their output: %s", all)
	}
}
