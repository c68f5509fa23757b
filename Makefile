# Two commands: `make demo` shows the gate at work, `make test` runs what CI runs. Both install what
# is missing through the system's package manager. With Rust and PostgreSQL present,
# `cargo run -- demo` and `cargo test` do the same.

CARGO ?= cargo

.PHONY: help demo test bench bench-micro fmt lint rust postgresql drivers clean

help:
	@echo "make demo        tenants of every isolation behind the gate, on throw-away clusters"
	@echo "make demo ONCE=1 the same, checks itself and exits"
	@echo "make test        format, lints, all tests, drivers of other languages"
	@echo "make bench       throughput and latency beside PostgreSQL and PgBouncer"
	@echo "make bench-micro nanoseconds of single steps"
	@echo "make fmt lint    format; lints only"

demo: rust postgresql
	$(CARGO) run --locked -- demo $(if $(ONCE),--once)

# What is run a second time, on four workers: everything that servers and sessions take part in.
WITH_WORKERS = isolation lifecycle protocol refusals

test: rust postgresql drivers
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings
	TENANTGATE_TEST_WORKERS=1 $(CARGO) test --locked
	TENANTGATE_TEST_WORKERS=4 $(CARGO) test --locked --test main -- $(WITH_WORKERS)

bench: rust postgresql
	@./.ci/install pgbouncer
	@ulimit -S -n "$$(ulimit -H -n)" 2>/dev/null || true; \
	$(CARGO) bench --locked --bench load -- $(ARGS)

bench-micro: rust postgresql
	$(CARGO) bench --locked --bench micro -- $(ARGS)

fmt:
	$(CARGO) fmt

lint: rust
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings

rust postgresql drivers:
	@./.ci/install $@

clean:
	$(CARGO) clean
