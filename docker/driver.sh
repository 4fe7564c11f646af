#!/bin/sh
# Runs `orchestrator COMMAND …` on the cluster: driver.sh sweep sweeps/ground_metrics.yaml, driver.sh status NAME.
#
# A sweep's driver must run on a machine of the cluster. So `sweep` and `resume` first make this machine a Ray node that
# runs no trials. The node ends when the driver ends, and the driver when the node ends.
#
# Must be set:  RAY_AUTH_TOKEN, RAY_HEAD_ADDRESS (host:port), MLFLOW_TRACKING_URI, RUNS_DIR (s3://bucket/prefix, or a
#               folder that every machine sees); MLFLOW_TRACKING_USERNAME, MLFLOW_TRACKING_PASSWORD and the AWS_
#               variables, if the servers ask for them
# May be set:   RAY_NODE_OPTIONS, more options for `ray start`, separated by blanks
set -eu
: "${RUNS_DIR:?s3://bucket/prefix, or a folder that every machine sees}"
command="${1:?expected one of the commands of orchestrator, e.g. sweep FILE}"
shift

case "$command" in
    sweep | resume)
        : "${RAY_AUTH_TOKEN:?the token of the cluster}" "${RAY_HEAD_ADDRESS:?host:port of the Ray head}"
        : "${MLFLOW_TRACKING_URI:?http://host:port of the MLflow server}"
        export RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0
        driver=$$ # exec keeps this process's number, so the driver receives every signal itself
        (
            # shellcheck disable=SC2086 # several options
            ray start --block --address "$RAY_HEAD_ADDRESS" --num-cpus 0 --num-gpus 0 \
                --object-store-memory "${RAY_OBJECT_STORE_BYTES:-268435456}" ${RAY_NODE_OPTIONS:-} > /dev/null &
            node=$!
            while kill -0 "$driver" && kill -0 "$node"; do sleep 1; done 2> /dev/null
            kill "$node" "$driver" 2> /dev/null
        ) &
        set -- --address "$RAY_HEAD_ADDRESS" --tracking-uri "$MLFLOW_TRACKING_URI" "$@"
        ;;
    sync)
        set -- --tracking-uri "${MLFLOW_TRACKING_URI:?http://host:port of the MLflow server}" "$@"
        ;;
esac
exec orchestrator "$command" --runs-dir "$RUNS_DIR" "$@"
