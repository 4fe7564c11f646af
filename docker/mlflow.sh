#!/bin/sh
# Runs MLflow's tracking server with PostgreSQL. The server passes artifacts on and asks every user for a password.
#
# Must be set:  PGHOST, PGUSER, PGPASSWORD (libpq's variables: no password stands in a URI or on a command line)
#               MLFLOW_AUTH_ADMIN_PASSWORD      password of the administrator made at the first start, whose name is
#                                               MLFLOW_AUTH_ADMIN_USERNAME (admin)
#               MLFLOW_FLASK_SERVER_SECRET_KEY  signs sessions
#               MLFLOW_SERVER_ALLOWED_HOSTS     Host headers that are answered, separated by commas
#               MLFLOW_ARTIFACTS_DESTINATION    s3://bucket (with AWS_ENDPOINT_URL and AWS_ credentials), or a folder
# May be set:   PGPORT (5432), MLFLOW_DATABASE (mlflow), MLFLOW_AUTH_DATABASE (mlflow_auth),
#               MLFLOW_HOST (0.0.0.0), MLFLOW_PORT (5000), MLFLOW_WORKERS (4), TMPDIR (/tmp)
# Further arguments go to `mlflow server`.
set -eu
: "${PGHOST:?the machine where PostgreSQL listens}" "${PGUSER:?}" "${PGPASSWORD:?PostgreSQL asks for a password}"
: "${MLFLOW_AUTH_ADMIN_PASSWORD:?MLflow has no default password}" "${MLFLOW_FLASK_SERVER_SECRET_KEY:?}"
: "${MLFLOW_SERVER_ALLOWED_HOSTS:?which Host headers to answer}" "${MLFLOW_ARTIFACTS_DESTINATION:?}"
export MLFLOW_AUTH_ADMIN_USERNAME="${MLFLOW_AUTH_ADMIN_USERNAME:-admin}"
export MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false # eight more processes that we do not need
export MLFLOW_DISABLE_TELEMETRY=true
export PYTHONSAFEPATH=1 UVICORN_APP_DIR=/dev/null # no module is imported from the working directory

# A user without permissions sees nothing. A correct password is cached for a minute, because hashing it is slow.
MLFLOW_AUTH_CONFIG_PATH=$(mktemp "${TMPDIR:-/tmp}/mlflow-auth.XXXXXX")
export MLFLOW_AUTH_CONFIG_PATH
cat > "$MLFLOW_AUTH_CONFIG_PATH" << END
[mlflow]
default_permission = NO_PERMISSIONS
database_uri = postgresql+psycopg2:///${MLFLOW_AUTH_DATABASE:-mlflow_auth}
auth_cache_ttl_seconds = 60
END

exec mlflow server --app-name basic-auth \
    --backend-store-uri "postgresql+psycopg2:///${MLFLOW_DATABASE:-mlflow}" \
    --artifacts-destination "$MLFLOW_ARTIFACTS_DESTINATION" \
    --allowed-hosts "$MLFLOW_SERVER_ALLOWED_HOSTS" \
    --host "${MLFLOW_HOST:-0.0.0.0}" --port "${MLFLOW_PORT:-5000}" --workers "${MLFLOW_WORKERS:-4}" "$@"
