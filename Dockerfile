# The same program in a container: for Container Apps and other places without the Functions host,
# and for building the package where Rust is not.
#
#   docker build -t spillway .                                 an image with the handler only
#   docker build --target package --output dist .              dist/app, for azd
#
# `--build-arg CONFIG=other.toml` takes another configuration of this folder.

FROM rust:1.95.0-slim-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends musl-tools ca-certificates && rm -rf /var/lib/apt/lists/*
WORKDIR /spillway
COPY rust-toolchain.toml ./
RUN rustup target add x86_64-unknown-linux-musl
COPY Cargo.toml Cargo.lock host.json ./
COPY functions functions
COPY tests tests
ENV CC_x86_64_unknown_linux_musl=musl-gcc
RUN cargo build --locked --release --target x86_64-unknown-linux-musl --bin spillway
ARG CONFIG=spillway.toml
COPY ${CONFIG} spillway.toml
RUN mkdir -p -m 1777 /empty/tmp
RUN target/x86_64-unknown-linux-musl/release/spillway package --out /package/app --config spillway.toml

FROM scratch AS package
COPY --from=build /package /

FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /package/app/spillway /spillway
COPY --from=build /package/app/spillway.toml /spillway.toml
# For usage events that wait to be delivered ([chargeback] spool).
COPY --from=build --chown=65532:65532 /empty/tmp /tmp
# Nobody in particular: the program writes nothing but these and its embedded store, if it is told to.
USER 65532:65532
EXPOSE 8080
# `/` says that it is up; put SPILLWAY_CONFIG_TOML or a mounted file (SPILLWAY_CONFIG) over the one inside.
ENTRYPOINT ["/spillway", "serve", "--host", "0.0.0.0", "--port", "8080"]
