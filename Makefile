# make | man | install | demo | test | conformance | test-vm | bench | lint | fuzz | clean
SHELL := /bin/bash
PREFIX ?= /usr/local
VM ?= ../shared/vm/vm
GO ?= go
BUILD = CGO_ENABLED=0 GOOS=linux $(GO) build -trimpath -buildvcs=false
# Their own first instructions: see entry_amd64.s in cmd/glassbox and cmd/glassbox-runtime.
ENTRY = -E main.entry
PROGRAMS = glassbox glassbox-runtime glassbox-api glassbox-build
# The builder is a module of its own, so that BuildKit and what it needs are no dependencies of the others: docs/dependencies.md.
BUILDER = cmd/glassbox-build
GOFUMPT = mvdan.cc/gofumpt@v0.12.0
STATICCHECK = honnef.co/go/tools/cmd/staticcheck@v0.8.2

export CGO_ENABLED = 0

all: build arm64 man

# Go knows best what has changed.
build:
	@mkdir -p bin
	GOARCH=amd64 $(BUILD) -ldflags '-s -w' -o bin/ ./cmd/glassbox-api
	GOARCH=amd64 $(BUILD) -ldflags '-s -w $(ENTRY)' -o bin/ ./cmd/glassbox ./cmd/glassbox-runtime
	cd $(BUILDER) && GOARCH=amd64 $(BUILD) -ldflags '-s -w' -o '$(CURDIR)/bin/' .

arm64:
	@mkdir -p bin/arm64
	GOARCH=arm64 $(BUILD) -ldflags '-s -w' -o bin/arm64/ ./cmd/glassbox-api
	GOARCH=arm64 $(BUILD) -ldflags '-s -w $(ENTRY)' -o bin/arm64/ ./cmd/glassbox ./cmd/glassbox-runtime
	cd $(BUILDER) && GOARCH=arm64 $(BUILD) -ldflags '-s -w' -o '$(CURDIR)/bin/arm64/' .

# Manual pages, and completions for bash, zsh and fish, as they go below PREFIX/share.
man:
	$(GO) run ./test/man bin/share

# Of the binaries that are there for the machine in use: `make` before `sudo make install`.
install:
	@test -x bin/glassbox -a -d bin/share || { echo 'run make first' >&2; exit 1; }
	install -d '$(DESTDIR)$(PREFIX)/bin'
	install -m 755 $(if $(filter aarch64,$(shell uname -m)),$(PROGRAMS:%=bin/arm64/%),$(PROGRAMS:%=bin/%)) '$(DESTDIR)$(PREFIX)/bin/'
	install -d '$(DESTDIR)$(PREFIX)/lib/systemd/system'
	for unit in glassbox.service glassbox-api.service glassbox-api.socket; do \
		sed 's|@PREFIX@|$(PREFIX)|' "systemd/$$unit" >'$(DESTDIR)$(PREFIX)/lib/systemd/system/'"$$unit" && \
		chmod 644 '$(DESTDIR)$(PREFIX)/lib/systemd/system/'"$$unit" || exit 1; done
	install -d '$(DESTDIR)$(PREFIX)/share/glassbox/policies'
	install -m 644 policies/*.json '$(DESTDIR)$(PREFIX)/share/glassbox/policies/'
	@[ -n '$(DESTDIR)' ] || [ ! -d /run/systemd/system ] || { systemctl daemon-reload && systemctl enable glassbox.service; }
	cd bin/share && find . -type f -exec install -D -m 644 '{}' '$(abspath $(DESTDIR)$(PREFIX))/share/{}' ';'

demo: build
	test/demo.sh

setup:
	test/setup.sh test

# Everything that can be tested on this machine; with ON=test/otherhost.sh on one that is different in all that tests could assume. Most
# tests wait more than they work, so two for each processor. TESTFLAGS='-run TestScripts/01-hostname' chooses.
test: setup build
	$(GO) vet ./...
	GLASSBOX_BIN='$(CURDIR)/bin' $(ON) $(GO) run ./test/report $(GO) test -json -count=1 -parallel $$((2 * $$(nproc))) -timeout 30m $(TESTFLAGS) ./...

# The OCI validation suite, a line for each test. RUNTIME=/usr/sbin/runc tries another runtime.
conformance: setup build
	@set -o pipefail; GLASSBOX_BIN='$(CURDIR)/bin' $(GO) test -count=1 -v -run '^TestConformance$$' ./test | \
		grep -vE '^(=== |    --- |--- )'

# One script, with all it prints: make script NAME=01-hostname
script: setup build
	GLASSBOX_BIN='$(CURDIR)/bin' $(GO) test -count=1 -v -run 'Script.*/$(NAME)$$' ./test

# Two machines at a time, one of them v2, which takes longest.
BESIDE = v1 v1-alone v2-alone
test-vm: setup build
	@mkdir -p out; export VM='$(VM)'; \
	(bad=0; for machine in $(BESIDE); do test/vm.sh $$machine || bad=1; done; exit $$bad) >out/vm.log 2>&1 & beside=$$!; \
	test/vm.sh v2; bad=$$?; wait $$beside || bad=1; cat out/vm.log; [ -n "$$QUICK" ] || test/boot.sh v2 || bad=1; exit $$bad

# The part of it to which cgroups and the kernel make a difference. Processor time on v1 is what `make test` measures on a host with both.
test-vm-quick: export QUICK = 1
test-vm-quick: BESIDE = v1 v2-alone
test-vm-quick: test-vm

bench: setup build
	$(GO) run ./test/bench -bin bin -o docs/benchmarks.md

lint:
	test/setup.sh lint
	@files=$$($(GO) run $(GOFUMPT) -l .) && if [ -n "$$files" ]; then echo "gofumpt: $$files"; exit 1; fi
	$(GO) vet ./...
	GOARCH=arm64 $(GO) vet ./...
	$(GO) run $(STATICCHECK) ./...
	cd $(BUILDER) && $(GO) vet -trimpath . && $(GO) run $(STATICCHECK) .
	shellcheck .ci/run $$(git ls-files '*.sh')

# A short turn of every fuzz test; FUZZTIME=10m for a long one.
FUZZTIME ?= 10s
fuzz:
	@set -e; for dir in $$($(GO) list -f '{{.Dir}}' ./...); do \
		for name in $$(grep -ho '^func Fuzz[A-Za-z0-9_]*' $$dir/*_test.go 2>/dev/null | cut -c6-); do \
			echo "$$dir $$name"; \
			(cd $$dir && $(GO) test -run '^$$' -fuzz "^$$name\$$" -fuzztime $(FUZZTIME) .); \
		done; \
	done

clean:
	rm -rf bin out

.PHONY: all build arm64 man install demo setup test conformance script test-vm test-vm-quick bench lint fuzz clean
