#!/bin/sh
# Becomes a machine of a Ray cluster, with all its cores and GPUs; ends when the head does not come back within a minute.
#
# Must be set:  RAY_AUTH_TOKEN, RAY_HEAD_ADDRESS (host:port)
# May be set:   RAY_OBJECT_STORE_BYTES (268435456)
# Further arguments go to `ray start`, e.g. --num-cpus 4, --num-gpus 1, --resources '{"big": 1}', --node-ip-address.
set -eu
: "${RAY_AUTH_TOKEN:?the token of the cluster}" "${RAY_HEAD_ADDRESS:?host:port of the Ray head}"
export RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0
# Workers that Ray starts beforehand, one a core, have not our code: they would end unused.
export RAY_prestart_worker_first_driver=0

exec ray start --block --address "$RAY_HEAD_ADDRESS" \
    --object-store-memory "${RAY_OBJECT_STORE_BYTES:-268435456}" "$@"
