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

# The port of a container is reachable from outside only if it is published. Set a token before it is published on more than
# 127.0.0.1, or on a machine with a browser: docker run -e THREADQ_API_TOKEN=.. or THREADQ_API_TOKEN_FILE. If a token is set,
# every request needs it, also with THREADQ_INSECURE_NO_TOKEN. Without a token every Host header is accepted, so a web page
# could reach the server by DNS rebinding.
ENV THREADQ_LISTEN=0.0.0.0:8080 \
    THREADQ_INSECURE_NO_TOKEN=true \
    THREADQ_DATA_DIR=/data \
    # Docker kills the container 10 s after SIGTERM: enough for running jobs and for Redis. --stop-timeout sets another time.
    THREADQ_DRAIN_TIMEOUT=6s

USER threadq
WORKDIR /data
VOLUME /data
EXPOSE 8080
STOPSIGNAL SIGTERM
# A liveness check: it needs no token, and an outage of Redis does not restart the server. If the port is not 8080, set
# THREADQ_SERVER to the URL that the check requests.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s CMD ["threadq", "health"]

ENTRYPOINT ["threadq"]
CMD ["serve"]
