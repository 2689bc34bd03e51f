# Builds hearth and puts it into a small image:
#
#   docker build --tag hearth .
#   docker run --rm --publish 7070:7070 --publish 7071:7071 hearth
#
# That serves VMs in name only, by the memory provider; docs/operations.md says what real ones need.
#
# Crates come from their registry, or, where the build has no network, from vendor/ as `cargo vendor` makes
# it, with a .cargo/config.toml that says so: scripts/image builds in that way.

# Images to build in and to run in; another mirror of theirs is another value here. The first needs Rust,
# a C compiler and binutils, the second glibc and what makes users.
ARG RUST=rust:1.95-bookworm
ARG BASE=debian:bookworm-slim

# The tree with every source file of ours emptied. Its layer stays the same while only code changes, and so
# does the one below, in which the dependencies are built.
FROM ${RUST} AS plan
WORKDIR /hearth
COPY . .
RUN find . -path ./vendor -prune -o -name '*.rs' \
        -exec sh -c 'for file; do echo "fn main() { }" >"$file"; done' sh {} + \
    && find . -path ./vendor -prune -o -name '*.proto' -exec rm {} +

FROM ${RUST} AS build
# A profile of Cargo's: dev compiles in less time.
ARG PROFILE=release
WORKDIR /hearth
COPY --from=plan /hearth .
RUN cargo build --profile "${PROFILE}" --locked --package hearth-server
COPY . .
# Newer than what was built of the emptied files, whatever time the files themselves carry.
RUN find . -path ./vendor -prune -o -name '*.rs' -exec touch {} + \
    && cargo build --profile "${PROFILE}" --locked --package hearth-server \
    && install -D --strip target/*/hearth /out/hearth

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
# What is shown here is a toy, to whoever the ports are published to: --insecure says so.
CMD ["--provider", "memory", "--insecure", "--listen", "0.0.0.0:7070", "--admin", "0.0.0.0:7071", \
     "--state", "/var/lib/hearth", "--runtime", "/run/hearth"]
