# Everything a developer does here. `make dev` and `make test` are all that the README asks for.
GO ?= go
WITH_SERVERS = $(GO) run ./internal/testenv/run --

.PHONY: test lint build bench

test: ## all tests, with the race detector, against a PostgreSQL and a Redis of their own
	$(WITH_SERVERS) $(GO) test -race ./...

lint: ## formatting, vet, staticcheck
	@test -z "$$(gofmt -l .)" || { gofmt -l .; echo "not formatted: run gofmt -w ."; exit 1; }
	$(GO) vet ./...
	$(GO) run honnef.co/go/tools/cmd/staticcheck@v0.8.2 ./...

bench: ## benchmarks, five rounds
	$(WITH_SERVERS) $(GO) test -run '^$$' -bench . -benchmem -count 5 ./...
