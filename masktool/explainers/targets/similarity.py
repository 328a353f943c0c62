"""How similar an image is to another one, as an embedding sees them: the cosine between their embeddings.

    s(x) = e(x) . r / (|e(x)| |r|)  and  d s / d e = r / (|e| |r|) - s e / |e|^2

e(x) are the numbers of an output, in one row; r those of the reference, which is one image as it is, whatever the mask
hides of x. An embedding of zeros has no direction: such a reference or image is refused, and a masked image whose
embedding is 0 counts as similar to nothing, 0.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
from numpy.typing import NDArray

from masktool.contract import FEATURE_MAP_OUTPUTS, Metadata, Size
from masktool.errors import MasktoolError
from masktool.explainers.model_outputs import ModelOutputs
from masktool.explainers.reading import describe_input, first_row
from masktool.explainers.subject import ImageLike, NamedImage, Subject, make_subject, read_named
from masktool.explainers.target import (
    FEW_ROUNDINGS,
    TARGETS,
    ClassScore,
    Combined,
    OutputShape,
    SettledOutput,
    Target,
    TargetError,
    shorten_label,
)
from masktool.explainers.targets.output_value import gives_logits, refuse_log_odds
from masktool.messages import Placeholder, parameter, parameters
from masktool.runtime.checks import show_shape
from masktool.runtime.inputs import Inputs
from masktool.runtime.session import MaskedSession

EMBEDDINGS = "embeddings of references"
"""What a session keeps embeddings under, so that a reference takes one pass however many images are compared."""
DIRECTION = "an embedding of zeros has no direction"


@TARGETS.add
@dataclasses.dataclass(frozen=True, eq=False)
class Similarity(Target):
    """The cosine similarity of an image's embedding to that of a reference.

    Attributes:
        reference: the image to compare with, as for :func:`masktool.explain`.
        output: the name of the output that holds the embedding; None where the model has one output.
        embedding: the reference's embedding (D,); None until a model has given it.
    """

    name: ClassVar[str] = "similarity"
    syntax: ClassVar[str] = parameters(reference=Placeholder("PHOTO"), output=Placeholder("NAME"))
    summary: ClassVar[str] = "the cosine of an embedding to another photograph's"
    gradient: ClassVar[str] = "its own, in two passes"

    reference: ImageLike | NamedImage
    output: str | None = None
    embedding: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "reference", read_named(self.reference))

    @property
    def named(self) -> NamedImage:
        """The reference as it was read."""
        assert isinstance(self.reference, NamedImage)  # as __post_init__ left it
        return self.reference

    @property
    def outputs(self) -> tuple[str | None, ...]:
        """The output that holds the embedding, once it is known."""
        return () if self.output is None else (self.output,)

    @property
    def names_outputs(self) -> bool:
        """Whether the output is known."""
        return self.output is not None

    def fit(self, shapes: Mapping[str, OutputShape], size: Size, metadata: Metadata | None = None) -> Self:  # noqa: ARG002
        """Returns the target with its output: the one that is named, or the only one that there is.

        Raises:
            TargetError: none is named, and there are several.
        """
        return dataclasses.replace(self, output=self.output or choose_embedding(shapes))

    def look_up(self, session: MaskedSession, subject: Subject, inputs: Inputs | None) -> Self:
        """Returns the target with the reference's embedding, which the model gives in a pass of its own, once."""
        assert self.output is not None  # since fit
        output = session.check_output(self.output)
        embedding = embed_reference(session, self.named, subject, output, inputs or {})
        return dataclasses.replace(self, output=output, embedding=embedding)

    def settle(self, outputs: ModelOutputs) -> SettledSimilarity:
        """Returns the similarity to the reference's embedding.

        Raises:
            MasktoolError: the embedding of the image is 0, or of another length than the reference's.
        """
        assert self.embedding is not None  # the model has been asked
        assert self.output is not None
        refuse_log_odds(outputs, self.output)
        found = embeddings_of(outputs, self.output)[0]
        if len(found) != len(self.embedding):
            raise MasktoolError(
                "embeddings of different lengths",
                where=f"output {self.output!r}",
                expected=f"{len(self.embedding)} numbers, as of {self.named.name}",
                got=len(found),
            )
        if not found.any():
            raise MasktoolError(DIRECTION, where=f"output {self.output!r} of the image")
        return SettledSimilarity(
            self.named.name,
            output_name=self.output,
            sha256=hashlib.sha256(self.embedding.tobytes()).hexdigest(),
            embedding=self.embedding,
            are_logits=gives_logits(outputs.metadata, self.output),
        )


@dataclasses.dataclass(frozen=True)
class SettledSimilarity(SettledOutput):
    """The similarity to an embedding.

    Attributes:
        index: the name of the reference.
        sha256: the digest of the reference's embedding, by which two references of one name are told apart.
        embedding: the reference's embedding, (D,) float32.
        are_logits: whether the embedding is the class output, so that gradients of class scores are of its numbers.
    """

    index: str
    sha256: str = dataclasses.field(kw_only=True)
    embedding: NDArray[np.float32] = dataclasses.field(kw_only=True, compare=False, repr=False)
    are_logits: bool = dataclasses.field(default=False, kw_only=True, compare=False)

    def read(self, outputs: ModelOutputs) -> NDArray[np.float64]:
        """Returns the cosines (M,); 0 where an embedding is 0."""
        return self.combine(embeddings_of(outputs, self.output_name)).values.astype(np.float64)

    def score_name(self, outputs: ModelOutputs) -> str:  # noqa: ARG002
        """Returns ``cosine similarity``."""
        return "cosine similarity"

    @property
    def name(self) -> str:
        """Such as ``similarity to cat.jpg``."""
        return f"similarity to {self.index}"

    @property
    def title(self) -> str:
        """The name, that of the reference cut where it is long."""
        return f"similarity to {shorten_label(self.index)}"

    def describe(self) -> dict[str, Any]:
        """Returns the kind, the output, and the reference by its name and the digest of its embedding."""
        reference = {"name": self.index, "embedding_sha256": self.sha256}
        return {"kind": Similarity.name, "output": self.output_name, "index": None, "label": None} | {
            "reference": reference
        }

    def ranked(self, outputs: ModelOutputs) -> tuple[ClassScore, ...]:
        """Returns the similarity alone."""
        return (ClassScore(self.index, None, float(self.read(outputs)[0])),)

    def rounding(self, outputs: ModelOutputs) -> float:  # noqa: ARG002
        """Returns the range up to which a map is rounding: that of embeddings in float32, whatever their cosine."""
        return FEW_ROUNDINGS * float(np.finfo(np.float32).eps)

    def evidence_name(self, outputs: ModelOutputs) -> str:  # noqa: ARG002
        """Returns ``cosine similarities``."""
        return "cosine similarities"

    @property
    def classes(self) -> tuple[int, ...]:
        """All numbers of the embedding, where it is the class output."""
        return tuple(range(len(self.embedding))) if self.are_logits else ()

    @property
    def n_numbers(self) -> int:
        """The numbers of the embedding."""
        return len(self.embedding)

    @property
    def is_linear(self) -> bool:
        """That of an angle is none."""
        return False

    def places(self, shape: Sequence[int]) -> NDArray[np.intp]:  # noqa: ARG002
        """Returns all places of the embedding."""
        return np.arange(len(self.embedding), dtype=np.intp)

    def combine(self, numbers: NDArray[np.floating[Any]]) -> Combined:
        """Returns the cosines of embeddings (N, D), and their derivatives; both are 0 where an embedding is 0."""
        embeddings, reference = numbers.astype(np.float64), self.embedding.astype(np.float64)
        direction = reference / np.linalg.norm(reference)
        lengths = np.linalg.norm(embeddings, axis=1, keepdims=True)
        inverse = np.divide(1, lengths, out=np.zeros_like(lengths), where=lengths > 0)
        units = embeddings * inverse
        cosines = units @ direction
        return Combined(cosines, (direction - cosines[:, None] * units) * inverse)

    @property
    def logit_name(self) -> str:
        """The word for what gradients are of."""
        return "cosine similarity"

    def holds(self, outputs: ModelOutputs) -> NDArray[np.bool_]:
        """Returns whether the image and the reference still point the same way, (M,)."""
        return self.read(outputs) > 0


def embeddings_of(outputs: ModelOutputs, output: str) -> NDArray[np.float64]:
    """Returns the embeddings (M, D) in an output, whatever the axes of its rows."""
    values = outputs.values[output]
    return np.asarray(values, np.float64).reshape(len(values), -1)


def choose_embedding(shapes: Mapping[str, OutputShape]) -> str:
    """Returns the name of the output that holds embeddings, which is the only one.

    Args:
        shapes: the shapes of a model's outputs by name; None for an axis of any length.

    Raises:
        TargetError: there are several.
    """
    own = {name: shape for name, shape in shapes.items() if name not in FEATURE_MAP_OUTPUTS}
    if len(own) > 1:
        raise TargetError(
            "several outputs may be the embedding",
            where=parameter("reference"),
            got=", ".join(f"{name} {show_shape(shape)}" for name, shape in own.items()),
            fix="say which: " + parameter("output", Placeholder("NAME")),
        )
    return next(iter(own))


def embed_reference(
    session: MaskedSession, reference: NamedImage, subject: Subject, output: str, inputs: Inputs
) -> NDArray[np.float32]:
    """Returns the embedding (D,) of a reference with nothing missing; the session keeps it.

    Raises:
        MasktoolError: the reference does not fit the model, is of another size than the image, or embedded as 0.
    """
    size = subject.prepared.size
    prepared = make_subject(reference.image, session, size if reference.is_photograph else None)
    if prepared.prepared.size != size:
        raise MasktoolError(
            "a reference of another size",
            where=parameter("reference", reference.name),
            expected="{} x {}, as the image".format(*size),
            got="{} x {}".format(*prepared.prepared.size),
        )
    others = str({name: describe_input(value) for name, value in inputs.items()})
    key = (output, hashlib.sha256(prepared.fed.tobytes()).digest(), others)
    with session.guard:
        kept: dict[Any, NDArray[np.float32]] = session.beside.setdefault(EMBEDDINGS, {})
    if key not in kept:
        kept[key] = ask_embedding(session, reference, prepared, output, inputs)
    return kept[key]


def ask_embedding(
    session: MaskedSession, reference: NamedImage, prepared: Subject, output: str, inputs: Mapping[str, npt.ArrayLike]
) -> NDArray[np.float32]:
    """Returns the embedding (D,) of a reference, by one pass."""
    values = session.run(prepared.fed, inputs=inputs, outputs=[output])[output]
    session.refuse_lists(output, values)
    embedding = first_row(output, values).reshape(-1)
    where = f"output {output!r} of {reference.name}"
    if not np.isfinite(embedding).all():
        raise MasktoolError("an embedding that is not finite", where=where, expected="numbers", got="NaN or infinity")
    if not embedding.any():
        raise MasktoolError(DIRECTION, where=where, fix="take another reference")
    return embedding
