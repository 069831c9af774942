# What to do with a fresh clone: `make run` and `make test`. Both need Rust, a C compiler and make;
# `make test` also needs Java 17 and Maven, for a real Kafka.

CARGO ?= cargo
# Further cargo features, for example FEATURES=tls (Kafka over TLS and SASL; builds OpenSSL, which needs Perl).
FEATURES ?=
features = $(if $(FEATURES),--features $(FEATURES))

# The directory that `make sqlx` writes.
SQLX ?= .sqlx
built = $${CARGO_TARGET_DIR:-target}/debug

.PHONY: help run test chaos bench lint audit extra sqlx openapi

help:
	@echo 'make run    build and start sightline with its own Kafka, Postgres and sample users'
	@echo 'make test   run all tests; they start a real Kafka and a real Postgres themselves'
	@echo 'make chaos  kill and cut off every part for SECONDS (600), beginning with SEED, then compare all answers'
	@echo 'make bench  measure backlog, freshness and reads against the same written by hand, and what storage costs; needs wrk and h2load'
	@echo 'make lint   check the format and run clippy, warnings denied; .ci/run checks more'
	@echo 'make audit  check licences, sources and advisories of dependencies with cargo-deny'
	@echo 'make extra  check what callers see, with tools that CI lacks: API linters, generated clients, examples, pictures of /docs'
	@echo 'make sqlx   write .sqlx, with which SQL is checked without a database'
	@echo 'make openapi  write openapi/openapi.json, as the program has it'

# ARGS goes to the program: make run ARGS='--rate 100'. The shell replaces itself with the program, so that
# Ctrl-C reaches the program and nothing else.
run:
	$(CARGO) build $(features)
	@exec $(built)/sightline dev $(ARGS)

# Integration tests wait for servers more than they compute, so more of them run at once than there are cores.
export RUST_TEST_THREADS ?= $(shell echo $$(($$(getconf _NPROCESSORS_ONLN) * 2)))

# The model of the protocol runs alone and first: it needs the whole processor, and tests with a broker have deadlines.
test:
	$(CARGO) test -p protocol
	$(CARGO) test --workspace --exclude protocol $(features)

# A failure prints the SEED and the SECONDS that repeat it.
SECONDS ?= 600
chaos:
	SIGHTLINE_TEST_CHAOS_SECONDS=$(SECONDS) $(if $(SEED),SIGHTLINE_TEST_SEED=$(SEED)) \
		$(CARGO) test $(features) --test it chaos:: -- --nocapture

# BENCH names sections and settings: make bench BENCH='ids --ids 10000000'; BENCH=--help lists them. Needs what `make test` needs;
# the sections reads and rebuild also need wrk and h2load (Debian's packages wrk and nghttp2-client).
bench:
	$(CARGO) bench --bench sightline $(features) -- $(BENCH)

lint:
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets $(features) -- --deny warnings

audit:
	$(CARGO) deny --workspace check --hide-inclusion-graph

# Needs npm, Java, Maven, Python, promtool and Chromium; installs what it may, and ends with a list of what it checked.
extra:
	FEATURES='$(FEATURES)' scripts/extra/run

openapi:
	$(CARGO) build $(features)
	$(built)/sightline openapi > openapi/openapi.json

# --workspace gives dependencies the same features as in every other build, so that they are built once.
sqlx:
	$(CARGO) build --locked --workspace $(features) --bin prepare
	$(built)/prepare $(SQLX) --locked $(features)
