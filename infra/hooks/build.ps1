# Builds the handler as the platform runs it, x86_64 Linux without any library, and lays out the
# package in dist/app. As build.sh, but for its flags for the C compiler and SOURCE_DATE_EPOCH: two builds need not
# give the same bytes. Windows needs zig as the C compiler, or a container engine.
param([string]$Config = 'spillway.toml')
$ErrorActionPreference = 'Stop'
$PSNativeCommandUseErrorActionPreference = $true
Set-Location (Join-Path $PSScriptRoot '../..')

$target = 'x86_64-unknown-linux-musl'
$targetDir = if ($env:CARGO_TARGET_DIR) { $env:CARGO_TARGET_DIR } else { 'target' }
if (Test-Path dist/app) { Remove-Item -Recurse -Force dist/app }
New-Item -ItemType Directory -Force dist | Out-Null

if (Get-Command cargo-zigbuild -ErrorAction SilentlyContinue) {
    rustup target add $target
    $cargoHome = if ($env:CARGO_HOME) { $env:CARGO_HOME } else { Join-Path $HOME '.cargo' }
    $separator = [char]0x1f
    $env:CARGO_ENCODED_RUSTFLAGS = @(
        "--remap-path-prefix=$((Get-Location).Path)=/spillway"
        "--remap-path-prefix=$cargoHome=/cargo"
        "--remap-path-prefix=$(rustc --print sysroot)=/rust"
    ) -join $separator
    cargo zigbuild --locked --release --target $target --bin spillway
    Remove-Item Env:CARGO_ENCODED_RUSTFLAGS
    Copy-Item (Join-Path $targetDir "$target/release/spillway") dist/spillway -Force
    # This machine can't run what it built: a program of its own lays it out.
    cargo run --locked --quiet -- package --out dist/app --config $Config --binary dist/spillway
}
elseif (Get-Command docker -ErrorAction SilentlyContinue) {
    docker build --target package --output dist --build-arg "CONFIG=$Config" .
}
else {
    throw 'Either zig (pip install ziglang cargo-zigbuild) or a container engine (docker) is needed to build for Linux.'
}
