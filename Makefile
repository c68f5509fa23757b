# Two commands: `make demo` shows the gate at work, `make test` runs what CI runs. Both install what
# is missing through the system's package manager. With Rust and PostgreSQL present,
# `cargo run -- demo` and `cargo test` do the same.

CARGO ?= cargo

.PHONY: help demo test drivers driver-suites torture mutants parity
.PHONY: bench bench-timing bench-micro fmt lint rust postgresql versions clean pg-regress

help:
	@echo "make demo        tenants of every isolation behind the gate, on throw-away clusters"
	@echo "make demo ONCE=1 the same, checks itself and exits"
	@echo "make test        format, lints, all tests, drivers of other languages"
	@echo "make drivers     installs the drivers of ten languages and tries each through the gate"
	@echo "make driver-suites"
	@echo "                 runs the test suites of two drivers straight and through the gate"
	@echo "make torture SECONDS=600 SEED=7 SERVERS=1 LEVEL=plain"
	@echo "                 many tenants, few servers, every fault; each of the four may be left out"
	@echo "make mutants     breaks the gate on purpose, one break at a time; a test must turn red"
	@echo "make parity      the same dialogs with PostgreSQL and through the gate, message by message"
	@echo "make pg-regress  PostgreSQL's own regression files by psql, directly and through the gate"
	@echo "make bench       throughput and latency beside PostgreSQL and PgBouncer"
	@echo "make bench-micro nanoseconds of single steps"
	@echo "make bench-timing whether the time of a refused login tells why"
	@echo "make fmt lint    format; lints only"

demo: rust postgresql
	$(CARGO) run --locked -- demo $(if $(ONCE),--once)

# What is run a second time, on four workers: everything that servers and sessions take part in.
WITH_WORKERS = isolation lifecycle protocol refusals

test: rust postgresql versions
	@./.ci/install drivers
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings
	TORTURE_SECONDS=30 TENANTGATE_TEST_WORKERS=1 $(CARGO) test --locked
	TENANTGATE_TEST_WORKERS=4 $(CARGO) test --locked --test main -- $(WITH_WORKERS)

# The drivers of other languages, all of them through the gate; prints which can do what.
drivers: rust postgresql
	@./.ci/install drivers
	$(CARGO) test --locked --test main drivers:: -- --nocapture

# The test suites of psycopg2 and asyncpg, straight and through the gate; prints what differs, and why.
driver-suites: rust postgresql
	@./.ci/install suites
	$(CARGO) test --locked --test main drivers::suites:: -- --ignored --nocapture

# `SECONDS` in all, in rounds of `ROUND`; `WORKERS` besides. TENANTGATE_PG_BIN selects the PostgreSQL.
torture: export TORTURE_SECONDS = $(or $(SECONDS),600)
torture: export TORTURE_SEED = $(SEED)
torture: export TORTURE_SERVERS = $(SERVERS)
torture: export TORTURE_WORKERS = $(WORKERS)
torture: export TORTURE_LEVEL = $(LEVEL)
torture: export TORTURE_ROUND = $(ROUND)
torture: rust postgresql
	$(CARGO) test --locked --test main torture:: -- --nocapture

# Deliberate breaks, one build each; `MUTANT` selects by name.
mutants: export MUTANT := $(MUTANT)
mutants: rust postgresql
	$(CARGO) test --locked --test main mutants:: -- --ignored --nocapture

# `PARITY=words` plays only the scripts whose room and name have these words in them.
parity: export PARITY := $(PARITY)
parity: rust postgresql
	$(CARGO) test --locked --test main parity::corpus -- --nocapture

# `PG_REGRESS=names` runs only these files.
pg-regress: export PG_REGRESS := $(PG_REGRESS)
pg-regress: rust postgresql
	@./.ci/install pg_regress
	$(CARGO) test --locked --test main parity::regress -- --ignored --nocapture

bench: rust postgresql
	@./.ci/install pgbouncer
	@ulimit -S -n "$$(ulimit -H -n)" 2>/dev/null || true; \
	$(CARGO) bench --locked --bench load -- $(ARGS)

bench-timing: rust postgresql
	TENANTGATE_TIMING_TRIES=10000 $(CARGO) test --locked --release --test main -- \
		logins::timing --nocapture

bench-micro: rust postgresql
	$(CARGO) bench --locked --bench micro -- $(ARGS)

fmt:
	$(CARGO) fmt

lint: rust
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings

rust postgresql versions:
	@./.ci/install $@

clean:
	$(CARGO) clean
