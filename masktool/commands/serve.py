"""``masktool serve``: predictions and explanations over HTTP, and a page to try them."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from masktool.commands import options
from masktool.commands.source_options import READING_OPTIONS
from masktool.errors import MasktoolError
from masktool.extras import require_extra
from masktool.interface.load import load
from masktool.interface.models import MODEL_VARIABLE
from masktool.option_names import for_command_line
from masktool.serving.jobs import JobBounds
from masktool.serving.logs import log_event, write_json_lines
from masktool.serving.settings import ServeSettings

if TYPE_CHECKING:
    from masktool.serving.served_model import ServedModel

DEFAULTS = ServeSettings()
NAMED = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]{0,99})=(.+)", re.DOTALL)
"""A model with the name that it is served under."""
UNNAMED = "model"
"""Name of a model whose own says nothing that can stand in an address."""
MILLI = 1000


def bound_option(name: str, default: float, what: str, kind: click.ParamType, metavar: str = "N") -> options.Decorator:
    """Returns an option for something that the server spends at most."""
    return click.option(name, type=kind, default=default, show_default=True, metavar=metavar, help=what)


COUNT = click.IntRange(min=1)
SECONDS = click.FloatRange(min=0, min_open=True)


@click.command("serve")
@click.argument("models", metavar="[MODEL|NAME=MODEL]...", nargs=-1)
@click.option("--host", default=DEFAULTS.host, show_default=True, metavar="ADDRESS", help="Address to listen at.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=DEFAULTS.port,
    show_default=True,
    metavar="N",
    help="Port to listen at; 0 takes any that is free. The address is printed.",
)
@bound_option(
    "--max-batch", DEFAULTS.max_batch, "Most images, or masks, of one run; larger requests are refused.", COUNT
)
@click.option(
    "--batch-delay",
    type=click.FloatRange(min=0),
    default=DEFAULTS.batch_delay * MILLI,
    show_default=True,
    metavar="MS",
    help="Milliseconds that a request waits for others to share its run, where the model is free.",
)
@bound_option(
    "--queue", DEFAULTS.queue, "Most requests that wait for a model; more are told to come back (429).", COUNT
)
@bound_option("--max-body", DEFAULTS.max_body, "Most bytes of a request.", COUNT, "BYTES")
@bound_option("--max-held", DEFAULTS.max_held, "Most bytes of all requests that are held at once.", COUNT, "BYTES")
@bound_option("--connections", DEFAULTS.connections, "Most connections that are open at once.", COUNT)
@bound_option("--seconds", DEFAULTS.seconds, "Most seconds that a request takes, its transfer included.", SECONDS, "S")
@bound_option("--header-seconds", DEFAULTS.header_seconds, "Most seconds that its headers take.", SECONDS, "S")
@bound_option("--jobs", DEFAULTS.jobs.workers, "Explanations that are made at once.", COUNT)
@bound_option(
    "--job-queue", DEFAULTS.jobs.longest, "Most explanations that wait; more are told to come back (429).", COUNT
)
@bound_option("--job-seconds", DEFAULTS.jobs.seconds, "Most seconds that an explanation takes.", SECONDS, "S")
@bound_option("--job-expiry", DEFAULTS.jobs.expiry, "Seconds that its result is kept for.", SECONDS, "S")
@bound_option(
    "--shutdown-seconds",
    DEFAULTS.shutdown_seconds,
    "Seconds that running requests and explanations get to end after SIGTERM.",
    SECONDS,
    "S",
)
@click.option(
    "--gradient",
    is_flag=True,
    help="Open files with gradients, for the methods that need them. Every run then computes them.",
)
@options.in_order(READING_OPTIONS)
@options.masking_option
@options.rule_option
@options.baseline_option
@options.provider_option
@options.provider_options_option
@options.threads_option
def command(
    models: tuple[str, ...],
    host: str,
    port: int,
    batch_delay: float,
    jobs: int,
    job_queue: int,
    job_seconds: float,
    job_expiry: float,
    gradient: bool,
    preprocess: str | None,
    provider: str,
    provider_options: Mapping[str, str],
    threads: int | None,
    **rest: Any,
) -> None:
    """Serve predictions and explanations over HTTP.

    MODEL is what `masktool explain -m` takes, and is served under its file's name; NAME=MODEL names it. Without one the
    built-in model is served. Speaks the Open Inference Protocol v2; explains pictures as jobs; a page to try it stands
    at /. Logs JSON lines on stderr. There is no password: whoever reaches the address can use it.
    """
    with require_extra("masktool serve", "serve"):
        from masktool.serving.served_model import ServedModel
        from masktool.serving.server import serve
    of_server = {name: rest.pop(name) for name in list(rest) if hasattr(DEFAULTS, name)}
    bounds = JobBounds(workers=jobs, longest=job_queue, seconds=job_seconds, expiry=job_expiry)
    settings = ServeSettings(host=host, port=port, batch_delay=batch_delay / MILLI, jobs=bounds, **of_server)
    named = name_models(models)
    write_json_lines()

    def open_models() -> list[ServedModel]:
        opened = []
        for name, model in named.items():
            session = load(
                model,
                provider,
                threads,
                provider_options=provider_options,
                gradient=gradient,
                say=lambda line: log_event("opening", message=for_command_line(line)),
                preprocessing=preprocess,
                **rest,
            )
            log_event("opened", model=name, path=str(session.path), message=session.announcement)
            opened.append(ServedModel(name, session, settings.max_batch))
        return opened

    serve(open_models, settings, options.print_line)


def name_models(models: Sequence[str]) -> dict[str, str | None]:
    """Returns the models by the names that they are served under.

    Raises:
        MasktoolError: two models have one name.
    """
    named: dict[str, str | None] = {}
    for text in models or (None,):
        match = None if text is None or Path(text).exists() else NAMED.fullmatch(text)
        name, model = (match[1], match[2]) if match else (name_in_address(text), text)
        if name in named:
            raise MasktoolError("two models of one name", where=name, fix="name them: one=FILE.onnx other=OTHER.onnx")
        named[name] = model
    return named


def name_in_address(model: str | None) -> str:
    """Returns the name of a model that was given none: that of its file, or of the hub's network."""
    model = model or os.environ.get(MODEL_VARIABLE)
    if model is None:
        return "demo"
    stem = Path(model.rpartition(":")[2]).stem if not Path(model).exists() else Path(model).stem
    return re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip("-.")[:100] or UNNAMED
