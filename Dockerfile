# syntax=docker/dockerfile:1
#
# Builds hearth and puts it into a small image:
#
#   docker build --tag hearth .
#   docker run --rm --publish 7070:7070 --publish 7071:7071 hearth
#
# That serves VMs in name only, by the memory provider. For real ones build with --build-arg
# PACKAGES=qemu-system-x86 and a BASE that has QEMU 9 or newer, and give the container --device /dev/kvm,
# --pid host (VMs end with process 1 of their PID namespace), and a guest: --volume DIR:/guest and
# `serve --provider qemu --guest /guest`.

# Images to build in and to run in; another mirror of theirs is another value here.
ARG RUST=rust:1.95-bookworm
ARG BASE=debian:bookworm-slim

# The tree with every source file emptied. Its layer stays the same while only code changes, and so does
# the one below, in which the dependencies are built.
FROM ${RUST} AS plan
WORKDIR /hearth
COPY . .
RUN find . -name '*.rs' -exec sh -c 'for file; do echo "fn main() { }" >"$file"; done' sh {} + \
    && find . -name '*.proto' -delete

FROM ${RUST} AS build
WORKDIR /hearth
COPY --from=plan /hearth .
RUN cargo build --release --locked --package hearth-server
COPY . .
# Newer than what was built of the emptied files, whatever time the files themselves carry.
RUN find . -name '*.rs' -exec touch {} + \
    && cargo build --release --locked --package hearth-server \
    && install -D --strip target/release/hearth /out/hearth

FROM ${BASE}
ARG PACKAGES=""
RUN if [ -n "${PACKAGES}" ]; then \
        apt-get update \
        && apt-get install --yes --no-install-recommends ${PACKAGES} \
        && rm -rf /var/lib/apt/lists/*; \
    fi \
    && groupadd --system --gid 7070 hearth \
    && useradd --system --uid 7070 --gid hearth --home-dir /var/lib/hearth --shell /usr/sbin/nologin hearth \
    && install -d -m 0700 -o hearth -g hearth /var/lib/hearth /run/hearth
COPY --from=build /out/hearth /usr/local/bin/hearth
USER hearth
VOLUME /var/lib/hearth
# gRPC, and the admin port: metrics and health.
EXPOSE 7070 7071
ENTRYPOINT ["/usr/local/bin/hearth", "serve"]
CMD ["--provider", "memory", "--listen", "0.0.0.0:7070", "--admin", "0.0.0.0:7071", \
     "--state", "/var/lib/hearth", "--runtime", "/run/hearth"]
