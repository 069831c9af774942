# What to do with a fresh clone: `make run` and `make test`. Needs Rust, a C compiler and make;
# `make test` also wants Java 17 and Maven, for a real Kafka.

CARGO ?= cargo
# Further cargo features, for example FEATURES=tls (Kafka over TLS and SASL; builds OpenSSL, which needs Perl).
FEATURES ?=
features = $(if $(FEATURES),--features $(FEATURES))

# Where `make sqlx` writes.
SQLX ?= .sqlx
built = $${CARGO_TARGET_DIR:-target}/debug

.PHONY: help run test break bench lint audit sqlx

help:
	@echo 'make run    build and start sightline with its own Kafka, Postgres and sample users'
	@echo 'make test   all tests, against a real Kafka and a real Postgres that they start themselves, and of the model'
	@echo 'make break  break everything that can break for SECONDS (600), from SEED on, and compare what is left'
	@echo 'make bench  measure a backlog against the same SQL written by hand, and what storage and reads cost'
	@echo 'make lint   format and clippy, warnings denied; .ci/run checks more'
	@echo 'make audit  licences, sources and known holes of dependencies, by cargo-deny'
	@echo 'make sqlx   write the data by which SQL is checked without a database (.sqlx)'

# ARGS goes to the program: make run ARGS='--rate 100'. The built program is started by itself, so that
# Ctrl-C reaches it and nothing else.
run:
	$(CARGO) build $(features)
	@exec $(built)/sightline dev $(ARGS)

# The model of the protocol first, by itself: it keeps the processor busy, and tests with a broker mind that.
test:
	$(CARGO) test -p protocol
	$(CARGO) test $(features)

# A failure says which SEED and SECONDS try it again.
SECONDS ?= 600
break:
	SIGHTLINE_TEST_BREAKER_SECONDS=$(SECONDS) $(if $(SEED),SIGHTLINE_TEST_SEED=$(SEED)) \
		$(CARGO) test $(features) --test it breaker:: -- --nocapture

# BENCH names parts and settings: make bench BENCH='ids --ids 10000000'; BENCH=--help tells them.
bench:
	$(CARGO) bench --bench sightline $(features) -- $(BENCH)

lint:
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets $(features) -- --deny warnings

audit:
	$(CARGO) deny --workspace check --hide-inclusion-graph

# The workspace together, so that dependencies have the features, and are built once, as for everything else.
sqlx:
	$(CARGO) build --locked --workspace $(features) --bin prepare
	$(built)/prepare $(SQLX) --locked $(features)
