"""Opens, writes and fingerprints models of any size; above 2 GiB their weights stand in a file beside the graph.

A protocol buffer ends at 2 GiB, and so do a session opened from bytes and everything else that wants a model as one
string. All of these are done in this module.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import shutil
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import onnx
import onnx_ir as ir
import onnxruntime

from masktool.errors import MasktoolError, reported_as
from masktool.exporters.forked import CAN_FORK, try_in_child
from masktool.external_weights import check_named_files
from masktool.files import check_target, replace_durably, temporary_directory, writing
from masktool.messages import parameter

LARGEST_WEIGHTS = 2**31 - 2**26
"""Bytes of weights up to which a model is one file: 2 GiB less 64 MiB for the graph, its names and its metadata."""
SMALLEST_OUTSIDE = 1024
"""Bytes below which a weight stays in the graph: shapes and axes, which shape inference reads."""
ALIGNMENT = 64
"""Bytes to a multiple of which shared weights begin: what vector instructions like to read."""
DATA_SUFFIX = ".data"
"""Ending, behind the model's own name, of the file of its weights, as ONNX's tools have it too."""
FATAL = 4
"""ONNX Runtime's log severity: errors reach us as exceptions."""


def count_weight_bytes(model: ir.Model) -> int:
    """Returns the size of all initializers of a model in bytes."""
    values = (value for graph in model.graphs() for value in graph.initializers.values())
    return sum(value.const_value.nbytes for value in values if value.const_value is not None)


def is_large(model: ir.Model) -> bool:
    """Tells whether a model does not fit into one protocol buffer."""
    return count_weight_bytes(model) > LARGEST_WEIGHTS


def load_small_weights(model: ir.Model) -> None:
    """Reads external weights into memory, in place: all of them, or of a large model those that stay in its graph."""
    large = is_large(model)
    for graph in model.graphs():
        for value in graph.initializers.values():
            tensor = value.const_value
            if isinstance(tensor, ir.ExternalTensor) and (not large or tensor.nbytes <= SMALLEST_OUTSIDE):
                value.const_value = ir.tensor(tensor.numpy().copy(), dtype=tensor.dtype, name=tensor.name)


@dataclasses.dataclass(frozen=True)
class Running:
    """How ONNX Runtime runs a model, where that differs from its defaults.

    Attributes:
        optimised: the level of ONNX Runtime's graph optimisations.
        threads: the number of threads within an operator; 0 leaves it to ONNX Runtime.
    """

    optimised: Literal["ALL", "EXTENDED", "BASIC", "OFF"] = "ALL"
    threads: int = 0

    @property
    def level(self) -> onnxruntime.GraphOptimizationLevel:
        """The level of optimisation as ONNX Runtime's own constant."""
        levels = onnxruntime.GraphOptimizationLevel
        return levels.ORT_DISABLE_ALL if self.optimised == "OFF" else getattr(levels, f"ORT_ENABLE_{self.optimised}")


AS_ALWAYS = Running()


def open_session(
    model: bytes | str, without: Sequence[str] = (), running: Running = AS_ALWAYS, what: str = "the model"
) -> onnxruntime.InferenceSession:
    """Opens a model in a session of ONNX Runtime on the CPU.

    Args:
        model: the bytes or the path of the model.
        without: names of ONNX Runtime's optimisers that are not to run.
        running: the level of optimisation and the number of threads.
        what: the description of the model in an error's message.

    Raises:
        MasktoolError: ONNX Runtime does not take it.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = FATAL
    options.graph_optimization_level = running.level
    options.intra_op_num_threads = running.threads
    if isinstance(model, str):
        check_named_files(Path(model))
    try:
        return onnxruntime.InferenceSession(
            model,
            options,
            providers=["CPUExecutionProvider"],
            disabled_optimizers=list(without),
            enable_fallback=0,  # there is nothing to fall back on, and it would print
        )
    except Exception as error:  # ONNX Runtime raises its own C++ exception types
        fix = "put the file of its weights beside it" if "external data" in str(error).lower() else None
        raise MasktoolError(f"ONNX Runtime does not take {what}", got=error, fix=fix) from error


def opens(path: Path) -> bool:
    """Tells whether ONNX Runtime opens an unchecked file as it stands; asked in a child process where that can be."""
    return try_in_child(lambda: "yes" if opens_here(path) else "").said == "yes" if CAN_FORK else opens_here(path)


def opens_here(path: Path) -> bool:
    """Tells whether ONNX Runtime opens a file in this process."""
    try:
        open_session(str(path))
    except MasktoolError:
        return False
    return True


def wrong_optimisers(model: ir.Model) -> list[str]:
    """Returns the names of ONNX Runtime's optimisers that would change a model's results.

    Up to version 1.31 ONNX Runtime makes a Pad of zeros the padding of the MaxPool behind it, which pads with −∞: wrong
    wherever all values in a window are negative.
    """
    producers = [node.inputs[0].producer() for node in model.graph if node.op_type == "MaxPool" and node.inputs[0]]
    return ["Pad_Fusion"] if any(node is not None and node.op_type == "Pad" for node in producers) else []


def open_model(model: ir.Model, running: Running = AS_ALWAYS) -> onnxruntime.InferenceSession:
    """Opens a model of any size on the CPU; a large one from a temporary directory that is removed with the session.

    Raises:
        MasktoolError: ONNX Runtime does not take it.
    """
    without = wrong_optimisers(model)
    if not is_large(model):
        return open_session(serialise(model), without, running)
    with contextlib.ExitStack() as stack:
        directory = stack.enter_context(temporary_directory())
        session = open_session(str(write_files(model, directory / "model.onnx")), without, running)
        weakref.finalize(session, stack.pop_all().close)
    return session


def serialise(model: ir.Model) -> bytes:
    """Returns a model as the bytes of an ``.onnx`` file.

    Raises:
        MasktoolError: protobuf does not take something in the model.
    """
    with reported_as("the graph cannot be written as a protocol buffer", where=model.graph.name):
        return bytes(ir.to_proto(model).SerializeToString())


def digest_apart_from_metadata(content: bytes) -> bytes:
    """Returns the SHA-256 of a model's bytes without its metadata and its producer, which no runtime runs."""
    proto = onnx.ModelProto.FromString(content)
    for field in ("metadata_props", "producer_name", "producer_version"):
        proto.ClearField(field)
    return hashlib.sha256(proto.SerializeToString(deterministic=True)).digest()


def write_files(model: ir.Model, path: Path) -> Path:
    """Writes a large model and, beside it, its weights; the model itself stays as it is. Returns the path."""
    with reported_as("the graph cannot be written with its weights beside it", where=model.graph.name):
        ir.save(model, path, external_data=path.name + DATA_SUFFIX, size_threshold_bytes=SMALLEST_OUTSIDE)
    return path


def fingerprint(model: ir.Model) -> str:
    """Returns the hexadecimal SHA-256 of a model as it would be written."""
    if not is_large(model):
        return hashlib.sha256(serialise(model)).hexdigest()
    with temporary_directory() as directory:
        graph = write_files(model, directory / "model.onnx")
        digest = hashlib.sha256(graph.read_bytes())
        with weights_path(graph).open("rb") as stream:
            while chunk := stream.read(2**24):
                digest.update(chunk)
    return digest.hexdigest()


def weights_path(path: Path) -> Path:
    """Returns the path of the file beside a large model that holds its weights."""
    return path.with_name(path.name + DATA_SUFFIX)


def unload_all(model: ir.Model, directory: Path, name: str) -> None:
    """Moves the weights of a model into a file, in place."""
    ir.external_data.unload_from_model(model, directory, name, size_threshold_bytes=SMALLEST_OUTSIDE)


def unload_once(model: ir.Model, directory: Path, name: str) -> None:
    """Moves the weights of a model into a file, in place; those of the same content have one place there."""
    places: dict[bytes, tuple[int, int]] = {}
    with (directory / name).open("wb") as stream:
        for graph in model.graphs():
            for value in graph.initializers.values():
                tensor = value.const_value
                if tensor is None or tensor.nbytes <= SMALLEST_OUTSIDE or value.is_graph_input():
                    continue
                content = tensor.tobytes()
                digest = hashlib.sha256(content).digest()
                if digest not in places:
                    stream.write(bytes(-stream.tell() % ALIGNMENT))
                    places[digest] = (stream.tell(), len(content))
                    stream.write(content)
                value.const_value = ir.ExternalTensor(
                    name,
                    *places[digest],
                    tensor.dtype,
                    shape=ir.Shape(tensor.numpy().shape),
                    name=str(value.name),
                    base_dir=directory,
                )


class Staging:
    """A temporary directory beside a file to be written, where the model is built, opened and checked.

    Nothing is seen at the target before :meth:`commit`. Of two files the weights appear first, and a model that stood
    there before is removed first of all: a reader finds the former model, none or the new one, never a mixture. Other
    files in ``beside`` lie in the directory too, and appear before the model that names them.
    """

    def __init__(self, target: Path, directory: Path, model: ir.Model, *, share_weights: bool = False) -> None:
        self.target = target
        self.path = directory / target.name
        self.model = model
        self.in_two_files = share_weights or is_large(model)
        self.opened: bytes | None = None
        self.beside: list[Path] = []
        if self.in_two_files:
            refuse_own_source(model, weights_path(target))
            with writing(target):
                unload = unload_once if share_weights else unload_all
                unload(model, directory, weights_path(target).name)

    def open(self, running: Running = AS_ALWAYS) -> onnxruntime.InferenceSession:
        """Opens the model in a session, as it is now."""
        content = serialise(self.model)
        self.opened = digest_apart_from_metadata(content)
        model = str(self.write()) if self.in_two_files else content
        return open_session(model, running=running, what="the graph that masktool made, a defect of masktool")

    def holds_what_was_opened(self) -> bool:
        """Tells whether the file that was written holds, but for metadata, the same bytes as the model last opened."""
        return digest_apart_from_metadata(self.path.read_bytes()) == self.opened

    def write(self) -> Path:
        """Writes the graph; weights in a file of their own are there already. Returns its path."""
        with writing(self.target):
            self.path.write_bytes(serialise(self.model))
        return self.path

    def check(self) -> None:
        """Runs ONNX's full check over the files that were written; MasktoolError where it finds a fault."""
        with reported_as(
            "ONNX's checker refuses the graph that masktool made", where=self.target.name, fix="nothing was written"
        ):
            onnx.checker.check_model(str(self.path), full_check=True)

    def add_copy(self, path: Path, name: str) -> None:
        """Puts a copy of a file among those that appear beside the target, under a name."""
        with writing(self.target):
            copied = Path(shutil.copyfile(path, self.path.with_name(name)))
        self.beside.append(copied)

    def commit(self) -> None:
        """Moves the files that were written to the target."""
        with writing(self.target):
            if self.in_two_files:
                self.target.unlink(missing_ok=True)
                replace_durably(weights_path(self.path), weights_path(self.target))
            for path in self.beside:
                replace_durably(path, self.target.with_name(path.name))
            replace_durably(self.path, self.target)

    def count_bytes(self) -> int:
        """Returns the size in bytes of the files at the target."""
        files = [self.target, *(self.target.with_name(path.name) for path in self.beside)]
        files += [weights_path(self.target)] if self.in_two_files else []
        return sum(file.stat().st_size for file in files)


@contextlib.contextmanager
def staging(target: Path, model: ir.Model, *, share_weights: bool = False) -> Iterator[Staging]:
    """Yields a :class:`Staging` for a target and removes its directory at the end.

    Args:
        target: the path of the file to write.
        model: the model to write.
        share_weights: whether its weights stand in a file beside it whatever their size, each content once: so that a
            network that stands in a graph twice has its weights once.

    Raises:
        MasktoolError: the target's directory cannot be made or written, or the target is no ordinary file.
    """
    place = check_target(target)
    if place != target and (share_weights or is_large(model)):
        raise MasktoolError(
            "the model is two files, which stand beside each other: it is above 2 GiB, or has weights that are shared",
            where=target,
            got=f"a symbolic link to {place}",
            fix="choose the file itself with " + parameter("path"),
        )
    with contextlib.ExitStack() as stack:
        with writing(target):
            place.parent.mkdir(parents=True, exist_ok=True)
            directory = stack.enter_context(temporary_directory(place.parent))
        yield Staging(place, directory, model, share_weights=share_weights)


def refuse_own_source(model: ir.Model, data: Path) -> None:
    """Raises MasktoolError where the file to write is one that the model reads its weights from."""
    tensors = (value.const_value for graph in model.graphs() for value in graph.initializers.values())
    for tensor in tensors:
        if isinstance(tensor, ir.ExternalTensor) and data.exists() and data.samefile(tensor.path):
            raise MasktoolError(
                "the output would overwrite the source's weights",
                where=data,
                fix="choose another output with " + parameter("path"),
            )
