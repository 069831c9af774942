# syntax=docker/dockerfile:1
# The gateway alone, with TLS for Kafka, without `sightline dev`. Images are pinned by their versions; whoever needs
# more pins their digests as well, which differ per registry mirror.

FROM rust:1.95.0-bookworm AS build
WORKDIR /src
COPY . .
ENV SQLX_OFFLINE=true
# Both caches stay with the builder: a change of ours compiles our crate only.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --locked --release --no-default-features --features tls \
    && cp target/release/sightline /usr/local/bin/sightline

FROM debian:12.12-slim
# For Kafka over TLS; Postgres over TLS brings its own.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /usr/local/bin/sightline /usr/local/bin/
# A container is reached from outside, so it listens beyond loopback; without authentication it then refuses to
# start, until SIGHTLINE_ALLOW_OPEN=true says that the network is trusted.
ENV SIGHTLINE_GRPC_ADDR=0.0.0.0:50051 \
    SIGHTLINE_HTTP_ADDR=0.0.0.0:8080 \
    SIGHTLINE_ADMIN_ADDR=0.0.0.0:9090 \
    SIGHTLINE_LOG_FORMAT=json
EXPOSE 50051 8080 9090
USER 65532:65532
HEALTHCHECK --interval=10s --timeout=6s --start-period=30s --retries=3 CMD ["sightline", "healthcheck"]
ENTRYPOINT ["sightline"]
CMD ["serve"]
