#!/bin/sh
# Runs the head of a Ray cluster. The head runs no trials.
#
# Must be set:  RAY_AUTH_TOKEN, the same on every machine
# May be set:   RAY_PORT (6379), RAY_DASHBOARD_HOST (127.0.0.1), RAY_DASHBOARD_PORT (8265),
#               RAY_OBJECT_STORE_BYTES (268435456, which is little: trials pass metrics on, but no data)
# Further arguments go to `ray start`, e.g. --node-ip-address, --num-cpus, --temp-dir.
set -eu
: "${RAY_AUTH_TOKEN:?Ray listens on every interface and runs what it is told: it wants a token}"
export RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0

exec ray start --head --block --num-cpus 0 --num-gpus 0 \
    --port "${RAY_PORT:-6379}" \
    --dashboard-host "${RAY_DASHBOARD_HOST:-127.0.0.1}" --dashboard-port "${RAY_DASHBOARD_PORT:-8265}" \
    --object-store-memory "${RAY_OBJECT_STORE_BYTES:-268435456}" "$@"
