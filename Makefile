# `make help` lists what there is. Everything listens on loopback only.
.DEFAULT_GOAL := help
.PHONY: help deps run demo stack test check peers bench faults fuzz clean-dev

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

deps: ## installs what tests and stack need: Kafka, PostgreSQL, Dovecot, Postfix, buf
	@deploy/dev/deps.sh

run: ## builds and starts Tributary in one process, nothing else needed (data/ keeps its data)
	@cargo build --quiet --workspace --bin tributary
	@exec target/debug/tributary all --config deploy/dev/tributary.toml

demo: ## sends a message as a customer would, to the Tributary of `make run`, and prints its ticket
	@target/debug/tributary send --config deploy/dev/tributary.toml --account demo \
		--from 'Ada Lovelace <ada@example.com>' --subject 'The printer is on fire' --text 'Smoke on the third floor. Please help!'

stack: deps ## starts Kafka, PostgreSQL, mail servers and the roles apart; Ctrl-C stops all of it
	@deploy/dev/stack.sh

test: ## every test: units, contract suites, the stories light and heavy
	@deploy/dev/test.sh

check: deps ## fmt, clippy, doc, buf lint, layers
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --quiet -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --workspace --no-deps --quiet
	.dev/buf/node_modules/.bin/buf lint proto
	cargo test --quiet --workspace --test layers

peers: ## lets the vendors' own libraries sign what we verify (fetches them from PyPI and npm)
	@deploy/dev/peers.sh

bench: deps ## measures speed and memory in a release build; results also in bench/results.json
	@deploy/dev/bench.sh
	cargo build --release --quiet --workspace --bin tributary --bin bench
	target/release/bench

faults: deps ## breaks everything for MINUTES=1 (SEED=… repeats a run), and judges what was lost or doubled
	@cargo build --quiet --workspace --bins
	@SEED=$(SEED) MINUTES=$(MINUTES) target/debug/faults

fuzz: ## feeds garbage to parsers, settings and rules, MINUTES=1 to each; begins with what testdata/ holds
	@deploy/dev/fuzz.sh $(or $(MINUTES),1)

clean-dev: ## forgets the data of `make run` and what `make deps` fetched
	rm -rf data .dev
