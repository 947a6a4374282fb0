# syntax=docker/dockerfile:1
#
# docker build -t threadq .
# docker run --rm -p 127.0.0.1:8080:8080 -v threadq-data:/data threadq

FROM rust:1-slim-bookworm AS builder
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked && cp target/release/threadq /threadq

FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends redis-server \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --home-dir /data --shell /usr/sbin/nologin threadq \
    && install -d -o threadq -g threadq -m 0700 /data
COPY --from=builder /threadq /usr/local/bin/threadq

# A container's port can be reached from outside only once it is published, so that none of these opens anything by
# itself. Before publishing it on more than 127.0.0.1, or beside a browser, set a token: docker run -e THREADQ_API_TOKEN=..
# or THREADQ_API_TOKEN_FILE. With a token set, requests need it whatever THREADQ_INSECURE_NO_TOKEN says; without one any
# Host is taken, so that a web page could get here by a name of its own.
ENV THREADQ_LISTEN=0.0.0.0:8080 \
    THREADQ_INSECURE_NO_TOKEN=true \
    THREADQ_DATA_DIR=/data \
    # Docker kills 10 s after it asked to stop: time for running jobs and for Redis. More with --stop-timeout.
    THREADQ_DRAIN_TIMEOUT=6s

USER threadq
WORKDIR /data
VOLUME /data
EXPOSE 8080
STOPSIGNAL SIGTERM
# Whether the server lives: it needs no token, and an outage of Redis is no reason to start the server again. For another
# port than 8080 set THREADQ_SERVER too: the check asks there.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s CMD ["threadq", "health"]

ENTRYPOINT ["threadq"]
CMD ["serve"]
