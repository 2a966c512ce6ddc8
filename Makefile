# What CI runs is in .ci/run; it calls these targets.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c

# Tools are Go modules of their own, so that nothing of them reaches go.mod.
tool = go tool -modfile=tools/$(1)/go.mod $(1)

# Runs what follows beside the servers that the tests need. With it a test that
# lacks one fails instead of being skipped.
with_servers = scripts/test-needs; export ZONEMINT_TEST_VAULT=$$(scripts/test-vault); \
	ZONEMINT_TEST_REQUIRE=1 scripts/with-postgres

.PHONY: all
all: generate lint test

# Installs what the tests need if it is missing and this may, builds a Vault once
# if there is none, starts a Postgres of its own, runs everything, and leaves
# nothing running.
.PHONY: test
test:
	$(with_servers) go test -timeout 30m $(TESTFLAGS) ./...

.PHONY: race
race:
	$(with_servers) go test -race -timeout 30m $(TESTFLAGS) ./...

# Builds without cgo, as releases are, and without it on other systems.
.PHONY: build
build:
	CGO_ENABLED=0 go build -trimpath -ldflags='-s -w' -o bin/zonemint ./cmd/zonemint

.PHONY: lint
lint: .protodeps
	test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { gofmt -l $$(git ls-files '*.go'); exit 1; }
	go vet ./...
	$(call tool,golangci-lint) run ./...
	$(call tool,buf) lint
	scripts/breaking
	go mod verify
	CGO_ENABLED=0 GOOS=darwin go vet ./cmd/zonemint

# Everything that is generated is committed; CI fails if this changes anything.
.PHONY: generate
generate: .protodeps
	$(call tool,buf) generate
	$(call tool,sqlc) generate

# The rules that request messages are annotated with, from the Go module that
# publishes them: the schema registry is not needed.
PROTOVALIDATE := v1.1.0
.protodeps:
	dir=$$(go mod download -json github.com/bufbuild/protovalidate@$(PROTOVALIDATE) | sed -n 's/^\t"Dir": "\(.*\)",$$/\1/p'); \
	install -D -m 644 "$$dir/proto/protovalidate/buf/validate/validate.proto" .protodeps/buf/validate/validate.proto

# Ratios to the raw rate of the same key, in one run on this machine.
.PHONY: bench
bench: build
	scripts/with-postgres scripts/bench

# What takes long: many kills, many rows, long fuzzing. A short form of each is
# part of the tests.
FUZZTIME := 2m
.PHONY: prove
prove:
	export ZONEMINT_PROVE=1; $(with_servers) go test -count=1 -timeout 60m ./integration ./store/...
	scripts/fuzz $(FUZZTIME)
	scripts/fresh
	go test -run='^$$' -bench=Revocation ./token
	$(MAKE) bench BENCHFLAGS='--memory 1000000 --revocations 1000 --ledger-rows 10000000'
