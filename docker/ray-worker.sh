#!/bin/sh
# Joins a Ray cluster with all cores and GPUs of this machine. Ends if the head is gone for a minute.
#
# Must be set:  RAY_AUTH_TOKEN, RAY_HEAD_ADDRESS (host:port)
# May be set:   RAY_OBJECT_STORE_BYTES (268435456)
# Further arguments go to `ray start`, e.g. --num-cpus 4, --num-gpus 1, --resources '{"big": 1}', --node-ip-address.
set -eu
: "${RAY_AUTH_TOKEN:?the token of the cluster}" "${RAY_HEAD_ADDRESS:?host:port of the Ray head}"
export RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0
# Ray would start one worker per core in advance. They lack our code and would end unused.
export RAY_prestart_worker_first_driver=0

exec ray start --block --address "$RAY_HEAD_ADDRESS" \
    --object-store-memory "${RAY_OBJECT_STORE_BYTES:-268435456}" "$@"
