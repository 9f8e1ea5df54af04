#!/bin/sh
# Pins every dependency with its hashes, for all platforms, without naming a registry.
set -eu
cd "$(dirname "$0")/.."
uv=${UV:-uv}
pin() { "$uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header "$@"; }
pin requirements/build.in -o requirements/build.txt
pin pyproject.toml -o requirements/runtime.txt
pin pyproject.toml --extra dev -o requirements/dev.txt
pin requirements/fuzz.in -o requirements/fuzz.txt
pin requirements/peers.in -o requirements/peers.txt
pin requirements/peers-envoy.in -o requirements/peers-envoy.txt
pin requirements/peers-mitmproxy.in -o requirements/peers-mitmproxy.txt
