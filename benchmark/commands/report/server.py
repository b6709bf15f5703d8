"""The page served on this machine, made again as rows appear."""

from __future__ import annotations

from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock

from ....errors import UserError
from ....seeds import digest
from ....store import files_below
from ..terminal import console
from .command import Asked, content

HOST = "127.0.0.1"
WAIT_S = 3  # until a page that could not be made is tried again


def serve(asked: Asked, port: int) -> None:
    """Serve the page until Ctrl-C; raises UserError where the port is taken."""
    asked.check()
    server = make_server(lambda: asked.folder, lambda: content(asked).page(live=True), port)
    console.print(
        f"http://{HOST}:{server.server_port}/ shows the rows in {asked.folder}; Ctrl-C ends it", soft_wrap=True
    )
    with server:
        server.serve_forever()


def make_server(folder: Callable[[], Path], make: Callable[[], str], port: int) -> ThreadingHTTPServer:
    """Return a server, on this machine only, of the page that ``make`` returns of the rows in ``folder``."""
    latest = Latest(folder, make)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, kind, text = latest.answer(self.path)
            body = text.encode()
            self.send_response(status)
            self.send_header("Content-Type", f"{kind}; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Cache-Control", "no-store")
            self.send_header("X-Content-Type-Options", "nosniff")
            if status == 503:
                self.send_header("Refresh", str(WAIT_S))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing of each request."""

    try:
        return ThreadingHTTPServer((HOST, port), Handler)
    except (OSError, OverflowError) as error:
        said = error.strerror if isinstance(error, OSError) else error
        raise UserError(f"cannot serve on port {port}: {said}; choose another with --port") from error


class Latest:
    """The page of the latest rows: made when it is asked for and rows have changed since."""

    def __init__(self, folder: Callable[[], Path], make: Callable[[], str]) -> None:
        self.folder = folder
        self.make = make
        self.lock = Lock()
        self.known: tuple[str, str] | None = None

    def answer(self, path: str) -> tuple[int, str, str]:
        """Return the status, the kind and the text that a path gets; one that cannot be made is tried again later."""
        try:
            if path == "/version":
                return 200, "text/plain", self.version()
            if path in ("/", "/index.html"):
                return 200, "text/html", self.page()
        except UserError as error:
            return 503, "text/plain", f"{error}\n\nThis page looks again every {WAIT_S} seconds."
        return 404, "text/plain", "there is nothing here but /"

    def version(self) -> str:
        """Return a hash that changes whenever a row is written or goes."""
        files = sorted(path for path in files_below(self.folder()) if path.suffix == ".json" and path.name[0] != ".")
        stats = [(str(path), path.stat()) for path in files if path.exists()]
        return digest([[name, stat.st_mtime_ns, stat.st_size] for name, stat in stats])

    def page(self) -> str:
        """Return the page of the rows that are there now."""
        with self.lock:
            version = self.version()
            if self.known is None or self.known[0] != version:
                self.known = version, self.make()
            return self.known[1]
