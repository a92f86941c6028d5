# The gateway as an image: no shell, no package manager, no root.
#
#   docker build --build-arg REVISION="$(git rev-parse HEAD)" --tag iluma-gateway .
#   docker run --publish 8080:8080 --volume ./gateway.toml:/etc/iluma-gateway/gateway.toml:ro \
#     --volume iluma-gateway:/var/lib/iluma-gateway --env ILUMA_LIVE_API_KEY ... iluma-gateway
#
# Listeners are on loopback by default; in a container the configuration names 0.0.0.0, and state.path a file below
# /var/lib/iluma-gateway.

# Both images are of one Debian: the binary is linked against the first one's glibc and runs on the second one's. A mirror or a
# digest may stand in for either, and a release should use digests: --build-arg FINAL_IMAGE=registry.example/cc@sha256:...
ARG RUST_IMAGE=docker.io/library/rust:1.95.0-slim-trixie
# glibc, libgcc and the certificates of public authorities, for a user that is not root (65532). Its packages are listed in
# /var/lib/dpkg/status.d, where scanners and makers of an SBOM look for them.
ARG FINAL_IMAGE=gcr.io/distroless/cc-debian13:nonroot

# --- Dependencies: a layer that changes with Cargo.toml and Cargo.lock alone ------------------------------------------
FROM ${RUST_IMAGE} AS dependencies
WORKDIR /build
COPY Cargo.toml Cargo.lock ./
COPY simulator/Cargo.toml simulator/Cargo.toml
# Empty crates in the place of ours, so that only what they depend on is built.
RUN mkdir -p src simulator/src tests/it \
  && touch src/lib.rs simulator/src/lib.rs tests/it/main.rs \
  && echo 'fn main() {}' > src/main.rs \
  && cargo build --release --locked --package iluma-gateway

# --- The gateway ------------------------------------------------------------------------------------------------------
FROM dependencies AS build
# Shown by the metric build_info.
ARG REVISION=unknown
ENV ILUMA_GATEWAY_REVISION=${REVISION}
COPY config config
COPY simulator simulator
COPY src src
# Cargo compares times: what was copied must be newer than what the empty crates left.
RUN find src simulator -name '*.rs' -exec touch {} + \
  && cargo build --release --locked --package iluma-gateway \
  && mkdir -p /out/state \
  && cp target/release/iluma-gateway Cargo.lock /out/

# --- What ships -------------------------------------------------------------------------------------------------------
FROM ${FINAL_IMAGE}
ARG VERSION=0.1.0
ARG REVISION=unknown
ARG CREATED=unknown
LABEL org.opencontainers.image.title="iluma-gateway" \
  org.opencontainers.image.description="Shares one Iluma (Indonesian KYC API) account between the teams of a company" \
  org.opencontainers.image.licenses="Apache-2.0" \
  org.opencontainers.image.version="${VERSION}" \
  org.opencontainers.image.revision="${REVISION}" \
  org.opencontainers.image.created="${CREATED}"
COPY --from=build --chmod=755 /out/iluma-gateway /usr/local/bin/iluma-gateway
# The crates that are linked in, for scanners: a stripped binary does not tell them.
COPY --from=build --chmod=644 /out/Cargo.lock /usr/local/share/iluma-gateway/Cargo.lock
# Durable state; a new volume takes this owner over.
COPY --from=build --chown=65532:65532 /out/state /var/lib/iluma-gateway
USER 65532:65532
WORKDIR /var/lib/iluma-gateway
VOLUME ["/var/lib/iluma-gateway"]
# Teams, Iluma's callbacks, operators, health and metrics.
EXPOSE 8080 8081 9090 9091
# Asks the status listener of the configuration, or admin; the image has no curl.
HEALTHCHECK --interval=10s --timeout=6s --start-period=30s --retries=3 \
  CMD ["/usr/local/bin/iluma-gateway", "healthcheck", "--config", "/etc/iluma-gateway/gateway.toml"]
ENTRYPOINT ["/usr/local/bin/iluma-gateway"]
CMD ["run", "--config", "/etc/iluma-gateway/gateway.toml"]
