# Everything a developer does here. `make test` is all that it takes to start.
GO           ?= go
FLAGS        ?=
GOLANGCI     := $(GO) run github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
OPA           = $(GO) run github.com/open-policy-agent/opa@$(shell $(GO) list -m -f '{{.Version}}' github.com/open-policy-agent/opa)
WITH_SERVERS := $(GO) run ./internal/testenv/run --
PROGRAMS     := $(addprefix bin/gatehouse-,plugin pdp authsvc dev)

# These read whole policies and answer one question after another. What runs side by side in them is pdp/author's, whose own tests
# have the race detector; with it here too they take six times as long, and a third of all that make test takes.
UNRACED      := policies pdp/author/command
RACED         = $(filter-out $(addprefix %/,$(UNRACED)),$(shell $(GO) list ./...))

.PHONY: help dev demo test raced unraced bench bench-pdp lint policies security docs build $(PROGRAMS)

help: ## what there is to make
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' Makefile

dev: bin/gatehouse-dev bin/gatehouse-plugin ## everything in one process, until Ctrl-C; FLAGS=-h lists what can be set
	@bin/gatehouse-dev serve $(FLAGS)

demo: bin/gatehouse-dev bin/gatehouse-plugin ## a story played against everything, on free ports
	@bin/gatehouse-dev demo $(FLAGS)

test: ## all tests, with the race detector, against a PostgreSQL and a Redis of their own
	@$(WITH_SERVERS) $(MAKE) --no-print-directory --keep-going raced unraced

raced:
	@$(GO) test -race $(FLAGS) $(RACED)

unraced:
	@$(GO) test $(FLAGS) $(addprefix ./,$(UNRACED))

bench: ## all benchmarks, five rounds
	@$(WITH_SERVERS) $(GO) test -run '^$$' -bench . -benchmem -count 5 $(FLAGS) ./...

bench-pdp: ## the decision point beside OPA's own server; ROUNDS=5, FLAGS=-h lists the rest
	@$(GO) run ./pdp/bench -rounds $(or $(ROUNDS),5) $(FLAGS)

lint: ## formatting, golangci-lint with go vet's analyzers, and the policies
	@unformatted=$$(gofmt -l .); test -z "$$unformatted" || { echo "run gofmt -w on:"; echo "$$unformatted"; exit 1; }
	$(GOLANGCI) run ./...
	$(MAKE) --no-print-directory policies

policies: ## opa check, fmt and test, by the OPA that pdp embeds
	$(OPA) check --strict policies
	$(OPA) fmt --fail --diff policies
	$(OPA) test policies

security: ## docs/security.md anew: which test proves which requirement
	$(GO) run ./internal/arch/secdoc

docs: ## docs/plugin.md, from the plugin's schema
	$(GO) run ./plugin -docs > docs/plugin.md.new && mv docs/plugin.md.new docs/plugin.md

build: $(PROGRAMS) ## bin/gatehouse-{plugin,pdp,authsvc,dev}, static and stripped

$(PROGRAMS): bin/gatehouse-%: # go build knows best what is out of date, so it is always asked
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '-s -w' -o $@ ./$*
