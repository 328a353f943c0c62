"""Runs command lines in forked children, each with one fault, and writes what came of them.

Forked from a process that has imported everything, so that a run takes the time of its work alone. A fault strikes at
the n-th step at which Python changes something below the current directory (a file opened for writing, a name made,
changed or removed), after some time, or holds from the start.
"""

from __future__ import annotations

import errno
import importlib
import json
import os
import resource
import signal
import sys
import time
from pathlib import Path
from typing import Any

LONGEST_SECONDS = 120.0
CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod", "os.truncate", "os.link", "os.symlink"}
MODULES = (
    "masktool.cli",
    "masktool.exporters",
    "masktool.exporters.sources",
    "masktool.exporters.write",
    "onnxruntime",
)
MODULES += ("masktool.runtime.session", "masktool.explainers.explaining", "skimage.segmentation", "rich.progress")
MODULES += ("onnxruntime",)
MODULES += ("scipy.linalg",)  # its OpenBLAS tries for ever where memory is short at the moment it is loaded
MODULES += ("masktool.commands.export", "masktool.commands.explain", "masktool.commands.demo", "matplotlib.pyplot")
MODULES += ("masktool.commands.evaluate.faithfulness", "masktool.commands.evaluate.report", "jinja2")


def main() -> None:
    """Reads jobs from stdin, a JSON document a line, and writes a JSON document for each: its exit code and steps."""
    names = [*MODULES, *sys.argv[1:]]
    for name in names:
        importlib.import_module(name)
    for line in sys.stdin:
        jobs = json.loads(line)
        children = [start(job) for job in jobs]
        print(json.dumps([finish(*child) for child in children]), flush=True)


def start(job: dict[str, Any]) -> tuple[int, int, str]:
    """Forks a child that runs a job; returns its process, the pipe of its steps, and the file of its messages."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        os._exit(run(job, write))
    os.close(write)
    if "seconds" in job:
        time.sleep(job["seconds"])
        os.kill(child, job["signal"])
    return child, read, job["messages"]


def finish(child: int, steps: int, messages: str) -> dict[str, Any]:
    """Waits for a child, not for ever."""
    deadline = time.monotonic() + LONGEST_SECONDS
    while (found := os.waitpid(child, os.WNOHANG))[0] == 0:
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            return {"code": "hangs", "steps": 0, "said": read_if_any(messages)}
        time.sleep(0.01)
    status = found[1]
    with os.fdopen(steps, "rb") as stream:
        count = len(stream.read())
    return {"code": os.waitstatus_to_exitcode(status), "steps": count, "said": read_if_any(messages)}


def read_if_any(messages: str) -> str:
    """Returns what a child said; nothing where it was killed before it could open the file."""
    return Path(messages).read_text() if Path(messages).exists() else ""


def run(job: dict[str, Any], steps: int) -> int:
    """Runs a command line in this process with its fault."""
    from masktool import cli

    os.chdir(job["folder"])
    os.environ.update(job["environment"])
    output = os.open(job["messages"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.dup2(output, 2)
    os.dup2(closed_pipe() if job.get("fault") == "pipe" else os.open(os.devnull, os.O_WRONLY), 1)
    sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
    if job.get("fault") == "memory":
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + job["bytes"],) * 2)
    watch(job, steps)
    cli.raise_on_termination()
    try:
        return cli.run(job["arguments"])
    finally:
        sys.stdout = sys.stderr  # what is left in a buffer has no reader
        sys.stderr.flush()


def closed_pipe() -> int:
    """Returns a pipe that nobody reads."""
    read, write = os.pipe()
    os.close(read)
    return write


def watch(job: dict[str, Any], steps: int) -> None:
    """Counts the steps that change something, and strikes at the one that the job names."""
    root, count = os.path.realpath(job["folder"]), 0

    def note(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal count
        if not changes(event, arguments, root):
            return
        count += 1
        os.write(steps, b".")
        fault = job.get("fault")
        if fault == "kill" and count == job["step"]:
            os.kill(os.getpid(), job["signal"])
        if fault in ("ENOSPC", "EROFS") and (count == job["step"] or (fault == "EROFS" and count > job["step"])):
            number = getattr(errno, fault)
            raise OSError(number, os.strerror(number))

    sys.addaudithook(note)


def changes(event: str, arguments: tuple[Any, ...], root: str) -> bool:
    """Tells whether an audit event changes something below a folder."""
    if event == "open":
        path, mode, flags = arguments
        writes = any(letter in mode for letter in "wax+") if isinstance(mode, str) else flags & os.O_ACCMODE != 0
        if not writes:
            return False
    elif event in CHANGES:
        path = arguments[0]
    else:
        return False
    return isinstance(path, str | os.PathLike) and os.path.join(root, path).startswith(root + os.sep)  # noqa: PTH118


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    main()
