# Localloop. `make help` lists the targets.
GO ?= go

.PHONY: test-kernel
test-kernel: ## what a workstation's kernel lacks, on Debian's kernel under QEMU
	GO="$(GO)" ./test/kernel/run.sh
