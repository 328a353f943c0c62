"""`masktool serve` as a process of its own, and clients that speak to it over 127.0.0.1."""

import contextlib
import http.client
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

PATIENCE = 60
"""Seconds that a test waits for what should be there at once."""


class ServerProcess:
    """A server that runs; its log is read all the time, so that it never waits for a reader."""

    def __init__(self, process):
        self.process, self.lines = process, []
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()
        self.address = process.stdout.readline().strip()
        if not self.address:
            process.wait(PATIENCE)
            self.reader.join(PATIENCE)
            raise AssertionError("\n".join(self.lines))
        self.host, _, port = self.address.removeprefix("http://").partition(":")
        self.port = int(port)

    def read(self):
        for line in self.process.stderr:
            self.lines.append(line)

    @property
    def log(self):
        """The log so far; every line of it is JSON."""
        return [json.loads(line) for line in self.lines]

    def ask(self, method, path, body=None, headers=None, timeout=PATIENCE):
        """Returns the status, the headers and the content of an answer."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=timeout)
        with contextlib.closing(connection):
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()

    def ask_json(self, method, path, body=None, headers=None):
        """Returns the status and the document of an answer."""
        status, _, content = self.ask(method, path, body, headers)
        return status, json.loads(content)

    def wait_until_ready(self):
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            with contextlib.suppress(OSError):
                if self.ask("GET", "/v2/health/ready")[0] == 200:
                    return
            time.sleep(0.05)
        raise AssertionError("\n".join(self.lines))

    def wait_for_job(self, status_path, *states):
        """Returns the document of a job once it stands as one of some states."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            _, document = self.ask_json("GET", status_path)
            if document["state"] in states:
                return document
            if document["state"] in ("done", "failed", "cancelled"):
                break
            time.sleep(0.02)
        raise AssertionError(document)

    def resident_bytes(self):
        """Returns the memory that the process holds."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def end(self):
        """Ends the process by SIGTERM, and returns its exit code."""
        if self.process.poll() is None:
            self.process.terminate()
        return self.wait_for_end()

    def wait_for_end(self):
        """Waits until the process has ended, and returns its exit code."""
        try:
            return self.process.wait(2 * PATIENCE)
        finally:
            if self.process.poll() is None:
                self.process.kill()
            self.reader.join(PATIENCE)


@contextlib.contextmanager
def serving(*arguments, ready=True, environment=None):
    """Yields a server of its own; after the block it is ended."""
    process = subprocess.Popen(
        [sys.executable, "-m", "masktool", "serve", "--port", "0", "--threads", "1", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})},
    )
    try:
        server = ServerProcess(process)
        if ready:
            server.wait_until_ready()
        yield server
        server.end()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait(PATIENCE)
