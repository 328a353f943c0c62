"""Explanations in Ray: a class for ``ray.data.Dataset.map_batches``, whose actors open the model once each.

Ray reads, schedules, retries and checkpoints; this file only turns a batch of photographs into rows.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from masktool.errors import MasktoolError
from masktool.execution_providers import AUTO, CPU
from masktool.explainers.explanation import Explanation
from masktool.explainers.explanation_settings import SHARED_ARGUMENTS
from masktool.explainers.method import build_method
from masktool.explainers.stopping import STOPPING_ARGUMENTS
from masktool.explainers.target import TargetError, TargetLike
from masktool.extras import require_extra
from masktool.files import atomic_path
from masktool.interface.explain import default_method, explain_targets, open_for_method, split_options
from masktool.interface.folders.names import name_file
from masktool.interface.models import known_metadata
from masktool.interface.rows import COLUMNS, Row, arrow_schema, arrow_table, explanation_row, failure_row
from masktool.runtime.images import read_encoded
from masktool.runtime.session import MaskedSession

if TYPE_CHECKING:
    import pyarrow

PATH, BYTES, IMAGE = "path", "bytes", "image"
"""Columns of a batch, as ``ray.data.read_binary_files`` and ``ray.data.read_images`` name them."""
EXTRA = "ray"
PURPOSE = "masktool.ray"
SCHEME = "://"


class Explain:
    """Explains batches of photographs; a class for ``ray.data.Dataset.map_batches``.

    Each actor opens the model when it starts, with as many threads as Ray gave it CPUs, and on the CPU unless Ray gave
    it a GPU or a share of one. ``ray.data.read_binary_files(FOLDER, include_paths=True)`` gives what it takes: the
    columns ``path`` and ``bytes``, a file of any format that masktool reads; or ``path`` and ``image``, arrays as for
    :func:`masktool.explain`. It gives one row per photograph and target, the columns that ``masktool explain --format
    parquet`` writes; a photograph that cannot be explained is a row whose ``error`` says why.

    Args:
        model: path of the model on every node, best one that ``masktool export`` wrote: any other is exported by
            each actor that finds no export in the cache of its machine.
        method: name of the method, as for :func:`masktool.explain`.
        targets: targets of each photograph, each as for :func:`masktool.explain`.
        provider: ONNX Runtime's execution provider; None takes the CPU, or what ``auto`` finds where Ray gave the
            actor a GPU, whose number it has set. A GPU that Ray gave and that does not load is an error.
        provider_options: options of the provider, as for :func:`masktool.load`. A share of a GPU is what Ray counts;
            what keeps actors from taking more memory than their share is an option such as CUDA's ``gpu_mem_limit``.
        keep: names of columns of the batch that each row carries along, such as an identifier or a label.
        pictures: folder or address (``s3://...``) that a picture of each map is written into, as PNG; None writes none.
        root: folder or address that the photographs lie in; a picture is named after the photograph's path in it, so
            that no two share a name. Needed with ``pictures``.
        **arguments: further keyword arguments of :func:`masktool.explain`.

    Raises:
        MasktoolError: Ray or pyarrow is not installed, the model cannot be opened, or an argument cannot be used.

    Attributes:
        session: open session of the actor.
    """

    def __init__(
        self,
        model: str | os.PathLike[str],
        method: str | None = None,
        *,
        targets: Sequence[TargetLike] = (None,),
        provider: str | None = None,
        provider_options: Mapping[str, object] | None = None,
        keep: Sequence[str] = (),
        pictures: str | os.PathLike[str] | None = None,
        root: str | os.PathLike[str] | None = None,
        **arguments: Any,
    ) -> None:
        self._again = functools.partial(
            Explain,
            model,
            method,
            targets=targets,
            provider=provider,
            provider_options=provider_options,
            keep=keep,
            pictures=pictures,
            root=root,
            **arguments,
        )
        check_kept(keep)
        self.keep = tuple(keep)
        self.pictures = None if pictures is None else PictureFolder.find(pictures, root)
        self.method = method or default_method(known_metadata(os.fspath(model)))
        self.targets = list(targets)
        self.arguments, of_export = separate(self.method, arguments)
        share = read_share()
        opening = {"providers": share.choose(provider), "threads": share.threads, "provider_options": provider_options}
        self._open = contextlib.ExitStack()
        own, _ = split_options(self.method, without_shared(self.arguments))
        built = build_method(self.method, own, self.arguments.get("n_samples"))
        self.session: MaskedSession = self._open.enter_context(
            open_for_method(os.fspath(model), built, self.arguments.get("input_size"), {**opening, **of_export})
        )
        share.check(self.session, provider)

    def __reduce__(self) -> tuple[Any, tuple[()]]:
        return self._again, ()

    def __call__(self, batch: Mapping[str, NDArray[Any]]) -> pyarrow.Table:
        """Returns the rows of a batch, in the order of its photographs.

        Args:
            batch: columns ``path`` and ``bytes`` or ``image``, and those to keep.

        Raises:
            MasktoolError: a column is missing, there is no such target, or a picture cannot be written.
        """
        check_columns(batch, self.keep)
        rows: list[Row] = []
        places: list[int] = []
        for place, path in enumerate(batch[PATH]):
            found = self.explain_one(str(path), {name: batch[name][place] for name in (BYTES, IMAGE) if name in batch})
            rows += found
            places += [place] * len(found)
        table = arrow_table(rows)
        for name in self.keep:
            table = table.append_column(name, [[batch[name][place] for place in places]])
        return table

    def explain_one(self, path: str, content: Mapping[str, Any]) -> list[Row]:
        """Returns the rows of one photograph: one for each target, or one that says why there are none.

        Args:
            path: path of the photograph.
            content: the photograph's ``bytes`` or ``image``.
        """
        encoded = content.get(BYTES)
        digest = None if encoded is None else hashlib.sha256(encoded).hexdigest()
        try:
            image = read_content(content, path)
            found = explain_targets(self.session, image, self.targets, self.method, **self.arguments)
        except TargetError:
            raise  # whatever the photograph
        except MasktoolError as error:
            return [failure_row(path, digest, error.message)]
        distinct = list({explanation.question: explanation for explanation in found}.values())
        if self.pictures is not None:
            for explanation in distinct:
                self.pictures.write(explanation, path, several=len(self.targets) > 1)
        return [explanation_row(explanation, path, digest) for explanation in distinct]


class ActorShare(NamedTuple):
    """What Ray gave an actor.

    Attributes:
        cpus: number of CPUs, which may be a fraction.
        gpus: number of GPUs, which may be a fraction.
    """

    cpus: float
    gpus: float

    @property
    def threads(self) -> int:
        """Number of threads for the model: one for each CPU, and at least one."""
        return max(1, int(self.cpus))

    def choose(self, provider: str | None) -> str:
        """Returns the provider to ask for, where none was named: the CPU, or the GPU that Ray gave."""
        return provider or (AUTO if self.gpus else CPU.name)

    def check(self, session: MaskedSession, provider: str | None) -> None:
        """Raises MasktoolError where Ray gave a GPU and the model, for which no provider was named, has none."""
        if provider is None and self.gpus and session.providers[0] == CPU.runtime_name:
            raise MasktoolError(
                "the actor has a GPU from Ray, and the model does not load on it",
                where=session.path,
                got=session.provider_note,
                fix="`masktool doctor` tells how to mend it; provider='cpu' takes the CPU, without num_gpus",
            )


def read_share() -> ActorShare:
    """Returns what Ray gave this actor; outside of an actor, one CPU.

    Raises:
        MasktoolError: Ray is not installed.
    """
    with require_extra(PURPOSE, EXTRA):
        import ray
    given = ray.get_runtime_context().get_assigned_resources() if ray.is_initialized() else {}
    return ActorShare(float(given.get("CPU", 0)), float(given.get("GPU", 0)))


class PictureFolder(NamedTuple):
    """Where pictures are written: a folder, or an address in a store.

    Attributes:
        system: file system of pyarrow's.
        folder: path in it; None where it is this machine's own.
        root: path that photographs lie in, as Ray's paths name it.
    """

    system: pyarrow.fs.FileSystem | None
    folder: str
    root: PurePosixPath

    @classmethod
    def find(cls, pictures: str | os.PathLike[str], root: str | os.PathLike[str] | None) -> PictureFolder:
        """Returns the place; arguments as for :class:`Explain`.

        Raises:
            MasktoolError: the root is missing, pyarrow is not installed, or knows no such address.
        """
        if root is None:
            raise MasktoolError("pictures are named after the photographs' paths in `root`", got="root=None")
        system, folder = find_file_system(pictures)
        return cls(system, folder, PurePosixPath(find_file_system(root)[1]))

    def write(self, explanation: Explanation, path: str, *, several: bool) -> None:
        """Writes the picture of an explanation; the same name and bytes whenever it is made again.

        Args:
            explanation: the explanation.
            path: path of the photograph.
            several: whether several targets were asked for, so that the name tells which this is.

        Raises:
            MasktoolError: the photograph does not lie in the root, or the picture cannot be written.
        """
        try:
            inside = PurePosixPath(path).relative_to(self.root)
        except ValueError as error:
            raise MasktoolError("a photograph outside of `root`", where=path, expected=self.root) from error
        name = str(inside.with_name(name_file(inside.name, explanation, "png", several=several)))
        if self.system is None:
            with atomic_path(Path(self.folder) / name) as temporary:
                explanation.write(temporary, "png")
            return
        with tempfile.TemporaryDirectory() as directory:
            written = Path(directory) / "picture.png"
            explanation.write(written, "png")
            with store_errors(name), self.system.open_output_stream(f"{self.folder}/{name}") as stream:
                stream.write(written.read_bytes())  # a store shows what is whole alone


@contextlib.contextmanager
def store_errors(where: object) -> Iterator[None]:
    """Raises an error of a store within the block as a MasktoolError."""
    try:
        yield
    except OSError as error:
        raise MasktoolError("the picture cannot be written", where=where, got=error) from error


def find_file_system(place: str | os.PathLike[str]) -> tuple[pyarrow.fs.FileSystem | None, str]:
    """Returns the file system of an address, None for this machine's own, and the path in it."""
    text = os.fspath(place)
    if SCHEME not in text:
        return None, str(Path(text).absolute())
    with require_extra(PURPOSE, EXTRA):
        from pyarrow import fs
    try:
        system, path = fs.FileSystem.from_uri(text)
    except (OSError, ValueError) as error:  # pyarrow's ArrowInvalid is a ValueError
        raise MasktoolError("no address that pyarrow knows", where=text, got=error) from error
    return (None if isinstance(system, fs.LocalFileSystem) else system), path.rstrip("/")


def separate(method: str, arguments: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns the arguments of an explanation, and those of an export."""
    _, of_export = split_options(method, without_shared(arguments))
    return {name: value for name, value in arguments.items() if name not in of_export}, of_export


def without_shared(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the arguments that belong to the method, or to an export."""
    return {name: value for name, value in arguments.items() if name not in (*SHARED_ARGUMENTS, *STOPPING_ARGUMENTS)}


def check_kept(keep: Sequence[str]) -> None:
    """Raises MasktoolError where a column to keep has the name of one that an explanation gives."""
    arrow_schema()  # without pyarrow nothing goes
    if taken := sorted({column.name for column in COLUMNS} & set(keep)):
        raise MasktoolError("an explanation's row has a column of that name", where="keep", got=", ".join(taken))


def check_columns(batch: Mapping[str, Any], keep: Sequence[str]) -> None:
    """Raises MasktoolError where a batch lacks a column."""
    missing = [name for name in (PATH, *keep) if name not in batch]
    if BYTES not in batch and IMAGE not in batch:
        missing.append(f"{BYTES} or {IMAGE}")
    if missing:
        raise MasktoolError(
            "the batch lacks columns",
            where=", ".join(missing),
            got=", ".join(batch),
            fix="read with ray.data.read_binary_files(FOLDER, include_paths=True)",
        )


def read_content(content: Mapping[str, Any], path: str) -> Image.Image | NDArray[Any]:
    """Returns the photograph or array of a row.

    Raises:
        MasktoolError: there is none, or the bytes are none.
    """
    if content.get(BYTES) is not None:
        return read_encoded(content[BYTES], path)
    if content.get(IMAGE) is not None:
        return np.asarray(content[IMAGE])
    raise MasktoolError("the row has no photograph", where=path)
