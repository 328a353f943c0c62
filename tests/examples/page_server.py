"""Serves the example page on this machine, with models beside it, as slowly as a test wants."""

import contextlib
import functools
import threading
import time
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

PARTS = 8
"""Parts in which a slow file is sent."""


class Handler(SimpleHTTPRequestHandler):
    """Serves a folder, and files of other folders by their names.

    Args:
        beside: paths of further files, by name.
        delays: seconds between parts, by name; a file that is not named is sent at once.
    """

    def __init__(self, *arguments, beside, delays, **options):
        self.beside, self.delays = beside, delays
        super().__init__(*arguments, **options)

    def translate_path(self, path):
        name = urlsplit(path).path.rpartition("/")[2]
        return str(self.beside[name]) if name in self.beside else super().translate_path(path)

    def copyfile(self, source, outputfile):
        delay = self.delays.get(urlsplit(self.path).path.rpartition("/")[2], 0)
        content = source.read()
        step = -(-len(content) // PARTS)
        with contextlib.suppress(ConnectionError):  # the page has gone away, or its worker
            for start in range(0, len(content), step):
                outputfile.write(content[start : start + step])
                time.sleep(delay)

    def log_message(self, *arguments):
        """Says nothing: pytest's output is for tests."""


@contextlib.contextmanager
def serving(folder, beside, delays):
    """Yields the address of a server."""
    handler = functools.partial(Handler, directory=str(folder), beside=beside, delays=delays)
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
