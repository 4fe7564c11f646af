"""The number of epochs per second that an MLflow server takes, with one ``log_batch`` per epoch as the driver sends it.

``python bench/tracking.py --tracking-uri http://127.0.0.1:5000`` needs a running server (``docker/mlflow.sh``),
MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD. It makes its own experiment and deletes it at the end.
"""

from __future__ import annotations

import argparse
import statistics
import threading
import time
import uuid


def log_epochs(run_id: str, metrics: int, until: float, seconds: list[float]) -> None:
    """Logs epochs of ``metrics`` metrics to a run until the time ``until``. Appends the seconds of each."""
    from mlflow import MlflowClient
    from mlflow.entities import Metric

    client = MlflowClient()
    epoch = 0
    while (begin := time.monotonic()) < until:
        now = int(time.time() * 1000)
        client.log_batch(run_id, [Metric(f"metric_{i}", i / 7, now, epoch) for i in range(metrics)])
        seconds.append(time.monotonic() - begin)
        epoch += 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tracking-uri", required=True)
    parser.add_argument(
        "--clients", type=int, nargs="+", default=[1, 4], help="numbers of threads, each with its own run"
    )
    parser.add_argument("--metrics", type=int, default=15, help="metrics per epoch")
    parser.add_argument("--seconds", type=float, default=15)
    arguments = parser.parse_args()

    import mlflow
    from mlflow import MlflowClient

    mlflow.set_tracking_uri(arguments.tracking_uri)
    client = MlflowClient()
    experiment = client.create_experiment(f"bench-{uuid.uuid4().hex[:8]}")
    try:
        begin = time.monotonic()
        runs = [client.create_run(experiment).info.run_id for _ in range(20)]
        print(f"create_run: {(time.monotonic() - begin) / len(runs) * 1000:.0f} ms")
        for clients in arguments.clients:
            seconds: list[float] = []
            until = time.monotonic() + arguments.seconds
            threads = [
                threading.Thread(target=log_epochs, args=(run, arguments.metrics, until, seconds))
                for run in runs[:clients]
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            print(
                f"{clients} clients, {arguments.metrics} metrics: {len(seconds) / arguments.seconds:.0f} epochs/s, "
                f"median {statistics.median(seconds) * 1000:.0f} ms, slowest {max(seconds) * 1000:.0f} ms"
            )
    finally:
        client.delete_experiment(experiment)


if __name__ == "__main__":
    main()
