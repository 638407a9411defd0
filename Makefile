# Everything a contributor or CI runs. `make test` installs by itself what it
# needs and can install (as root on Debian); elsewhere the tests that need it
# skip by name.
GO       ?= go
PKGS     ?= ./...
BIN      ?= bin/ganglion
VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS  := -s -w -X main.version=$(VERSION)
LINT     := github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.12.2
NFPM     := github.com/goreleaser/nfpm/v2/cmd/nfpm@v2.45.2
FUZZTIME ?= 20s

SOAK     ?= 1h

.PHONY: build check test race lint fuzz bench demo soak mutants packages deps clean

build:
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN) ./cmd/ganglion

check:
	@test -z "$$(gofmt -l .)" || { echo "gofmt: these files are not formatted:"; gofmt -l .; exit 1; }
	$(GO) vet $(PKGS)
	$(GO) test -count=1 .

test: deps
	$(GO) test -shuffle=on -timeout 20m $(TESTFLAGS) $(PKGS)

race: deps
	$(GO) test -race -shuffle=on -timeout 40m $(PKGS)

lint:
	$(GO) run $(LINT) run $(PKGS)

fuzz:
	@for pkg in $$($(GO) list $(PKGS)); do \
	  for f in $$($(GO) test -list '^Fuzz' $$pkg | grep '^Fuzz'); do \
	    echo "$$pkg $$f"; $(GO) test -run '^$$' -fuzz "^$$f$$" -fuzztime $(FUZZTIME) $$pkg || exit 1; \
	  done; \
	done

bench:
	@packaging/test-deps.sh bench
	$(GO) test -run '^$$' -bench . -benchtime 1x -timeout 60m $(PKGS)

demo:
	$(GO) run ./cmd/ganglion demo

# Singletons under faults for SOAK, with the lease timers that meshes have; and
# what a freeze and the gate held, until it is held no more. Before that, ten
# thousand histories of the budget, the brake and the gate.
soak: deps
	GANGLION_SEEDS=10 $(GO) test -count=1 -v -run '^TestBudgetFreezeAndGateHold$$' ./agent/leases
	GANGLION_TEST_SOAK=$(SOAK) $(GO) test -count=1 -v -run '^(TestSingletonsUnderFaults|TestFreezeAndGateHoldTheHerd)$$' -timeout 0 ./integration

# Seeded bugs of the machinery of rollouts and drains, and of addresses that hosts take
# over, each of which random histories must catch; about ten minutes.
mutants:
	$(GO) test -count=1 -v -run '^TestSeededBugsAreCaught$$' -timeout 60m ./consensus/topology ./agent/addresses -mutants

packages:
	NFPM=$(NFPM) VERSION=$(VERSION) packaging/build.sh

deps:
	@packaging/test-deps.sh

clean:
	rm -rf bin dist
