# Two commands: `make demo` shows the gate at work, `make test` runs what CI runs. Both install what
# is missing through the system's package manager. With Rust and PostgreSQL present,
# `cargo run -- demo` and `cargo test` do the same.

CARGO ?= cargo

.PHONY: help demo test bench fmt lint rust postgresql drivers clean

help:
	@echo "make demo        tenants of every isolation behind the gate, on throw-away clusters"
	@echo "make demo ONCE=1 the same, checks itself and exits"
	@echo "make test        format, lints, all tests, drivers of other languages"
	@echo "make bench       throughput and latency beside PostgreSQL and PgBouncer"
	@echo "make fmt lint    format; lints only"

demo: rust postgresql
	$(CARGO) run --locked -- demo $(if $(ONCE),--once)

test: rust postgresql drivers
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings
	$(CARGO) test --locked

bench: rust postgresql
	@./.ci/install pgbouncer
	@ulimit -S -n 4096 2>/dev/null || true; $(CARGO) bench --locked --bench load -- $(ARGS)

fmt:
	$(CARGO) fmt

lint: rust
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings

rust postgresql drivers:
	@./.ci/install $@

clean:
	$(CARGO) clean
