#!/usr/bin/env bash
# Builds the handler as the platform runs it, x86_64 Linux without any library, and lays out the
# package in dist/app. Two builds of the same source with the same tools give the same bytes.
#
#   infra/hooks/build.sh [--config FILE]     default: spillway.toml
set -euo pipefail
cd "$(dirname "$0")/../.."

config=spillway.toml
if [ "${1:-}" = --config ]; then
  config=$2
fi
target=x86_64-unknown-linux-musl
out=dist
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-target}

# Where the source and the crates lie is not part of the program.
cargo_home=${CARGO_HOME:-$HOME/.cargo}
sysroot=$(rustc --print sysroot)
separator=$(printf '\037')
flags="--remap-path-prefix=$PWD=/spillway"
flags+="$separator--remap-path-prefix=$cargo_home=/cargo"
flags+="$separator--remap-path-prefix=$sysroot=/rust"
export CARGO_ENCODED_RUSTFLAGS=$flags
# AES and RSA by AVX-512 are left out: they are nearly a megabyte, and no gateway's calls wait for its ciphers.
export CFLAGS_x86_64_unknown_linux_musl="-ffile-prefix-map=$cargo_home=/cargo -DMY_ASSEMBLER_IS_TOO_OLD_FOR_512AVX"
# mimalloc writes the date of its building into the program: the same one each time.
export SOURCE_DATE_EPOCH=0

rustup target add "$target" >/dev/null 2>&1 || true
if ! [ -d "$sysroot/lib/rustlib/$target" ]; then
  echo "Rust's library for $target is not there: rustup target add $target" >&2
  exit 1
fi

# A C compiler for musl, as TLS has some C in it.
if [ "$(uname -sm)" = "Linux x86_64" ] && command -v musl-gcc >/dev/null; then
  # The places where the program writes down its own addresses take a bit instead of 24 bytes each; musl reads
  # that from 1.2.4 on.
  CC_x86_64_unknown_linux_musl=musl-gcc cargo rustc --locked --release --target "$target" --bin spillway -- \
    -C link-arg=-Wl,-z,pack-relative-relocs
elif command -v cargo-zigbuild >/dev/null; then
  cargo zigbuild --locked --release --target "$target" --bin spillway
else
  echo "A C compiler for musl is missing. On Debian or Ubuntu: apt-get install musl-tools. Elsewhere, macOS included: pip install ziglang cargo-zigbuild. Or build in a container: docker build --target package --output dist ." >&2
  exit 1
fi

rm -rf "$out/app"
mkdir -p "$out"
install -m 755 "$CARGO_TARGET_DIR/$target/release/spillway" "$out/spillway"
if [ "$(uname -sm)" = "Linux x86_64" ]; then
  "$out/spillway" package --out "$out/app" --config "$config"
else
  # This machine can't run what it built: a program of its own lays it out.
  unset CARGO_ENCODED_RUSTFLAGS
  cargo run --locked --quiet -- package --out "$out/app" --config "$config" --binary "$out/spillway"
fi

# What is in it (CycloneDX), beside the package.
if command -v cargo-cyclonedx >/dev/null; then
  cargo cyclonedx --quiet --format json --target "$target" --override-filename spillway.cdx
  mv spillway.cdx.json "$out/spillway.cdx.json"
else
  echo "no list of parts (SBOM) was written: cargo install --locked cargo-cyclonedx" >&2
fi
(cd "$out" && sha256sum spillway 2>/dev/null || shasum -a 256 spillway)
