"""A real HTTP server on the loopback interface, for downloads."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Files:
    """The server's contents, its address, and the requests that it had."""

    address: str
    contents: dict[str, bytes] = field(default_factory=dict)
    """By name. Requests for any other name get 404."""
    sent_at_most: int | None = None
    """The number of bytes after which the connection is closed."""
    silent: bool = False
    """Whether requests are accepted but never answered."""
    asked: list[str] = field(default_factory=list)


@contextlib.contextmanager
def http_files() -> Iterator[Files]:
    ended = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = self.path.rpartition("/")[2]
            files.asked.append(name)
            if files.silent:
                ended.wait()
                return
            if name not in files.contents:
                self.send_error(404)
                return
            content = files.contents[name]
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[: files.sent_at_most])

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        files = Files(f"http://127.0.0.1:{server.server_port}/")
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}).start()
        try:
            yield files
        finally:
            ended.set()
            server.shutdown()
