"""``python s3_server.py HOST PORT``: an S3 server that keeps its objects in memory.

It is moto's server, restricted to one request at a time. With ``If-None-Match: *`` a real object store checks and
writes in one step, but moto lets other requests in between.
"""

from __future__ import annotations

import io
import os
import sys
import threading
from collections.abc import Iterable
from typing import Any

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import run_simple
from werkzeug.wsgi import get_input_stream

moto = DomainDispatcherApplication(create_backend_app)
turn = threading.Lock()


def one_at_a_time(environment: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """Reads a request before its turn and answers after it, so that no request waits for a client that has stopped."""
    environment["wsgi.input"] = io.BytesIO(get_input_stream(environment).read())
    with turn:
        return list(moto(environment, start_response))


if __name__ == "__main__":
    host, port = sys.argv[1:]
    os.environ["MOTO_PORT"] = port
    run_simple(host, int(port), one_at_a_time, threaded=True)
