# MLflow's server with its database driver and object store client. No torch, no Ray, and of our code only two scripts.
#
# docker build --file docker/mlflow.Dockerfile --tag orchestrator-mlflow:0.1.0 .
FROM python:3.11.14-slim-bookworm

ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1

RUN useradd --uid 1000 --no-create-home --home-dir /tmp mlflow
WORKDIR /app

COPY requirements.txt pyproject.toml docker/dependencies.py ./
RUN --mount=type=cache,target=/root/.cache/pip \
    python dependencies.py --only server > wanted.txt \
    && pip install --requirement wanted.txt --constraint requirements.txt

COPY docker/mlflow.sh docker/make_buckets.py docker/

USER 1000
EXPOSE 5000
ENTRYPOINT ["/app/docker/mlflow.sh"]
