# The image of outbox-relay:
#
#     docker build -t outbox-relay:0.1.0 --build-arg REVISION="$(git rev-parse HEAD)" .
#
# Both bases are arguments: for a registry of your own, or with a digest (…@sha256:…) for the same bytes every time.
ARG BUILD_BASE=docker.io/library/rust:1.95-bookworm
# glibc, libgcc and the authorities that TLS trusts; no shell, no packages. Of the same Debian as the other.
ARG RUN_BASE=gcr.io/distroless/cc-debian12:nonroot

FROM ${BUILD_BASE} AS build
WORKDIR /build
COPY Cargo.toml Cargo.lock ./
COPY sql sql
COPY src src
# What is compiled depends on nothing but sources, lock file and base: no paths, no times, one order.
ENV CARGO_INCREMENTAL=0 \
    CARGO_TERM_COLOR=never \
    SOURCE_DATE_EPOCH=0 \
    RUSTFLAGS="--remap-path-prefix=/build=. --remap-path-prefix=/usr/local/cargo=cargo -C strip=symbols"
# Sources of packages are kept between builds, and checked against the lock file; what is compiled is not.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    cargo build --release --locked --bin outbox-relay

FROM ${RUN_BASE}
ARG VERSION=0.1.0
ARG REVISION=
LABEL org.opencontainers.image.title="outbox-relay" \
      org.opencontainers.image.description="Carries committed rows of a PostgreSQL outbox into Redis streams, and puts back what Redis loses" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build --chown=0:0 --chmod=0755 /build/target/release/outbox-relay /usr/local/bin/outbox-relay
# By number, so that Kubernetes sees that it is not root.
USER 65532:65532
# Others than this container are to reach it.
ENV PATH=/usr/local/bin \
    OUTBOX_HTTP=0.0.0.0:9464
EXPOSE 9464
# It ends by SIGTERM, and writes to no file.
ENTRYPOINT ["/usr/local/bin/outbox-relay"]
CMD ["run"]
