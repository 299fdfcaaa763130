# Localloop. The targets are the only list of them; README.md explains the two that matter: run and test.
GO    ?= go
BUILD := build
# Version of a release; empty for a development build (the commit is shown then).
VERSION ?=
LDFLAGS := -s -w $(if $(VERSION),-X main.version=$(VERSION))
# Modules of tools live beside the product's, so that go.mod lists the product alone.
STATICCHECK := $(GO) tool -modfile=tools/staticcheck/go.mod staticcheck
GOVULNCHECK := $(GO) tool -modfile=tools/govulncheck/go.mod govulncheck

.PHONY: help run build test check bench fuzz docs test-kernel clean

help:
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## /\t/' | column -t -s "$$(printf '\t')"

run: ## edged and the simulated other side on this machine; ONCE=1 places the standard calls and exits
	@$(GO) build -o $(BUILD)/edged ./cmd/edged
	@$(GO) build -o $(BUILD)/branchsim ./cmd/branchsim
	@test/run.sh $(if $(ONCE),once,live)

build: ## edged for amd64 and arm64, static, into build/
	CGO_ENABLED=0 GOARCH=amd64 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $(BUILD)/edged-amd64 ./cmd/edged
	CGO_ENABLED=0 GOARCH=arm64 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $(BUILD)/edged-arm64 ./cmd/edged

test: ## every test; installs what tests need when root; lists what was skipped and why
	@test/setup.sh
	@$(GO) run ./test/report -race -shuffle=on -timeout=9m ./...

check: ## format, vet, staticcheck, vulnerabilities, layers
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { echo "not gofmt-ed:"; gofmt -l $$(git ls-files '*.go'); exit 1; }
	$(GO) vet ./...
	$(STATICCHECK) -checks all,-ST1000 ./...
	@test/vulnerabilities.sh "$(GOVULNCHECK)"
	$(GO) test -run 'TestLayers|TestDependencies' .

bench: ## speed, and how long voice is away when the LAN dies (CUTS calls, default 20)
	$(GO) test -run '^$$' -bench . -benchmem ./internal/...
	@$(GO) build -o $(BUILD)/edged ./cmd/edged
	@$(GO) build -o $(BUILD)/branchsim ./cmd/branchsim
	@test/run.sh cuts

fuzz: ## every fuzz target for FUZZTIME (default 20s)
	@test/fuzz.sh $(or $(FUZZTIME),20s)

docs: ## regenerate what is generated: docs/config.md, docs/conformance.md
	$(GO) test ./internal/config -run TestDocsMatchTheTypes -update
	$(GO) test . -run 'TestConformance$$' -update

test-kernel: ## what a workstation's kernel lacks, in a virtual machine with Debian's kernel
	@GO="$(GO)" test/kernel/run.sh

clean:
	rm -rf $(BUILD) .run
