# make demo   installs what is missing, builds, and shows Redis being lost and filled again
# make test   installs what is missing and passes the tests
# make swarm  faults in seeded schedules on real servers, for MINUTES=…, or of one SEED=… or SCHEDULE=file
# make lint   formatting, lints and documentation, as CI checks them
# make failure N=14     runs the tests of one failure of tests/failures.md
# make simulate MINUTES=5   runs the relay in simulated time, schedule after schedule
# make mutants          builds it with one thing broken, again and again, and sees each caught
# make bench            measures how fast it is, beside the limit and the textbook; MEASURE=drain for one
# make fuzz MINUTES=5   tries bad input at every door for longer than the tests do
# make charts           checks the chart, its alerts, its dashboard and the image by real tools
# make versions         runs the tests of delivery against several versions of both servers

CARGO ?= cargo
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)
HAVE_POSTGRES := $(shell command -v postgres || ls -d /usr/lib/postgresql/*/bin/postgres \
	/usr/pgsql-*/bin/postgres /opt/homebrew/opt/postgresql*/bin/postgres \
	/usr/local/opt/postgresql*/bin/postgres 2>/dev/null)
HAVE_REDIS := $(shell command -v redis-server || command -v valkey-server)
HAVE_POOLER := $(shell command -v pgbouncer || ls /usr/sbin/pgbouncer 2>/dev/null)
HAVE_CONTAINERS := $(and $(shell command -v buildah),$(shell command -v podman),$(shell command -v runc || \
	ls /usr/sbin/runc 2>/dev/null))
# Tests wait more than they work: four for two processors.
THREADS := $(shell expr $$(getconf _NPROCESSORS_ONLN) \* 2)

.PHONY: demo test swarm lint deps pooler containers languages failure simulate mutants bench fuzz charts versions

demo: deps
	$(CARGO) build --release
	target/release/outbox-relay demo

# The fail-points are for tests only; whatever kills at random, and the demo, run against the release build.
test: deps pooler languages
	$(CARGO) build --release
	$(CARGO) test --features failpoints --lib
	$(CARGO) test --features failpoints --doc
	$(CARGO) test --features failpoints --test it -- --skip random --skip demo:: --skip swarm:: \
		--test-threads $(THREADS)
	OUTBOX_RELAY_BIN=$(CURDIR)/target/release/outbox-relay \
		$(CARGO) test --features failpoints --test it -- random demo:: swarm::
	$(CARGO) bench --bench measures -- --short

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

failure: deps
	@row=$$(grep '^| $(N) |' tests/failures.md) && echo "$$row" && \
	names=$$(echo "$$row" | grep -o '`[a-z_0-9]*::[a-z_0-9:]*`' | tr -d '`') && test -n "$$names" && \
	$(CARGO) test --features failpoints --test it -- --exact $$names

simulate:
	OUTBOX_SIMULATION_SECONDS=$$(($(or $(MINUTES),1) * 60)) \
		$(CARGO) test --release --lib -- --nocapture simulation::no_schedule

# Half an hour; MUTANT=… runs those whose names contain it.
mutants: deps
	OUTBOX_MUTANT="$(MUTANT)" $(CARGO) test --features failpoints --test it -- --ignored --nocapture mutants::

# Three quarters of an hour for all; nothing else should run.
bench: deps
	$(CARGO) bench --bench measures -- $(MEASURE) --runs $(or $(RUNS),3)
	$(CARGO) bench --bench measures -- picture

# All doors at the same time, each for as long.
fuzz: deps
	OUTBOX_FUZZ_SECONDS=$$(($(or $(MINUTES),1) * 60)) \
		$(CARGO) test --features failpoints --test it -- --nocapture fuzz::

# Tools are fetched below target; one that cannot be had is named on a line SKIPPED.
charts: deps containers
	$(CARGO) build --release
	sh charts/check.sh target/tmp/charts target/release/outbox-relay
	sh charts/check_metrics.sh target/tmp/charts target/release/outbox-relay
	sh charts/check_image.sh target/tmp/charts target/release/outbox-relay

# Tests of delivery against several versions of both servers, fetched below target; VERSION=… for one.
versions: deps pooler
	sh tests/versions.sh target/tmp/versions $(VERSION)

# Packages of the examples in README.md, below target; a language that is absent is named and skipped.
languages:
	sh tests/readme/languages.sh target/tmp/languages

# Before Postgres in some tests, which are skipped without it.
pooler: deps
ifeq ($(HAVE_POOLER),)
ifeq ($(shell uname),Darwin)
	-brew install pgbouncer
else
	-$(SUDO) apt-get update -qq && \
		$(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq pgbouncer
endif
endif

# They build and run the image in the checks of it, which are skipped without them.
containers:
ifeq ($(HAVE_CONTAINERS),)
ifneq ($(shell uname),Darwin)
	-$(SUDO) apt-get update -qq && \
		$(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends buildah podman runc
endif
endif

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
