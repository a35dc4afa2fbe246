# make demo   installs what is missing, builds, and shows Redis being lost and filled again
# make test   installs what is missing and passes the tests
# make swarm  faults in seeded schedules on real servers, for MINUTES=…, or of one SEED=… or SCHEDULE=file
# make lint   formatting, lints and documentation, as CI checks them

CARGO ?= cargo
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)
HAVE_POSTGRES := $(shell command -v postgres || ls -d /usr/lib/postgresql/*/bin/postgres \
	/usr/pgsql-*/bin/postgres /opt/homebrew/opt/postgresql*/bin/postgres \
	/usr/local/opt/postgresql*/bin/postgres 2>/dev/null)
HAVE_REDIS := $(shell command -v redis-server || command -v valkey-server)

.PHONY: demo test swarm lint deps languages

demo: deps
	$(CARGO) build --release
	target/release/outbox-relay demo

# The fail-points are for tests only; kills at random times, and the demo, run against the release build.
test: deps languages
	$(CARGO) test --features failpoints --lib
	$(CARGO) test --features failpoints --test it -- --skip demo::
	$(CARGO) build --release
	OUTBOX_RELAY_BIN=$(CURDIR)/target/release/outbox-relay \
		$(CARGO) test --features failpoints --test it -- random demo::

# Random kills run against the release build; what came of it is below target, as JSON.
swarm: deps
	$(CARGO) build --release
	OUTBOX_RELAY_BIN=$(CURDIR)/target/release/outbox-relay OUTBOX_SWARM_MINUTES=$(MINUTES) \
		OUTBOX_SWARM_SEED=$(SEED) OUTBOX_SWARM_SCHEDULE=$(SCHEDULE) OUTBOX_SWARM_SHRINK=$(SHRINK) \
		$(CARGO) test --features failpoints --test it -- --ignored --nocapture \
		swarm::$(if $(SEED)$(SCHEDULE),one,for_long)

lint:
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets --all-features -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --no-deps --document-private-items

# Packages of the examples in README.md, below target; a language that is absent is named and skipped.
languages:
	sh tests/readme/languages.sh target/tmp/languages

# Private servers are started from these programs; servers that run already are not touched.
deps:
ifeq ($(and $(HAVE_POSTGRES),$(HAVE_REDIS)),)
ifeq ($(shell uname),Darwin)
	brew install postgresql@17 redis
else
	$(SUDO) apt-get update -qq
	$(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq postgresql redis-server
endif
endif
