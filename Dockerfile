# syntax=docker/dockerfile:1
# The gateway with TLS for Kafka, and without `sightline dev`. Images are pinned by version. Digests are not
# pinned, because they differ between registry mirrors.

FROM rust:1.95.0-bookworm AS build
WORKDIR /src
COPY . .
ENV SQLX_OFFLINE=true
# Both caches stay with the builder, so that a change in src/ compiles only this crate.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --locked --release --no-default-features --features tls \
    && cp target/release/sightline /usr/local/bin/sightline

FROM debian:12.12-slim
# Certificates for Kafka over TLS; the Postgres client has its own.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /usr/local/bin/sightline /usr/local/bin/
# Callers reach a container from outside, so sightline listens beyond loopback. Without authentication it then
# refuses to start unless SIGHTLINE_ALLOW_OPEN=true declares the network trusted.
ENV SIGHTLINE_GRPC_ADDR=0.0.0.0:50051 \
    SIGHTLINE_HTTP_ADDR=0.0.0.0:8080 \
    SIGHTLINE_ADMIN_ADDR=0.0.0.0:9090 \
    SIGHTLINE_LOG_FORMAT=json
EXPOSE 50051 8080 9090
USER 65532:65532
HEALTHCHECK --interval=10s --timeout=6s --start-period=30s --retries=3 CMD ["sightline", "healthcheck"]
ENTRYPOINT ["sightline"]
CMD ["serve"]
