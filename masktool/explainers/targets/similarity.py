"""How similar an image is to another one, as an embedding sees them: the cosine between their embeddings.

    s(x) = e(x) . r / (|e(x)| |r|)  and  d s / d e = r / (|e| |r|) - s e / |e|^2

e(x) are the numbers of an output, in one row; r those of the reference, which is one image as it is, whatever the mask
hides of x. An embedding of zeros has no direction: such a reference or image is refused, and a masked image whose
embedding is 0 counts as similar to nothing, 0.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
from numpy.typing import NDArray

from masktool.contract import FEATURE_MAP_OUTPUTS
from masktool.errors import MasktoolError
from masktool.explainers.model_outputs import ModelOutputs
from masktool.explainers.reading import describe_input, first_row
from masktool.explainers.subject import ImageLike, NamedImage, Subject, make_subject, read_named
from masktool.explainers.target import (
    FEW_ROUNDINGS,
    TARGETS,
    ClassScore,
    Combined,
    SettledOutput,
    Target,
    TargetError,
    shorten_label,
)
from masktool.explainers.targets.output_value import gives_logits, refuse_log_odds
from masktool.messages import Placeholder, parameter, parameters
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
    gradient: ClassVar[str] = "of the class output, in a pass for each number of the embedding"

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
        """The output that holds the embedding."""
        assert self.embedding is not None  # the model has been asked
        return (self.output,)

    def look_up(self, session: MaskedSession, subject: Subject, inputs: Inputs | None) -> Self:
        """Returns the target with the reference's embedding, which the model gives in a pass of its own, once."""
        output = choose_embedding(session, self.output)
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
            is_differentiable=gives_logits(outputs.metadata, self.output),
        )


@dataclasses.dataclass(frozen=True)
class SettledSimilarity(SettledOutput):
    """The similarity to an embedding.

    Attributes:
        index: the name of the reference.
        sha256: the digest of the reference's embedding, by which two references of one name are told apart.
        embedding: the reference's embedding, (D,) float32.
        is_differentiable: whether the file holds gradients of the embedding's numbers.
    """

    index: str
    sha256: str = dataclasses.field(kw_only=True)
    embedding: NDArray[np.float32] = dataclasses.field(kw_only=True, compare=False, repr=False)
    is_differentiable: bool = dataclasses.field(default=False, kw_only=True, compare=False)

    def read(self, outputs: ModelOutputs) -> NDArray[np.float64]:
        """Returns the cosines (M,); 0 where an embedding is 0."""
        return np.nan_to_num(self.combine(embeddings_of(outputs, self.output_name)).values, nan=0.0)

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
        """All numbers of the embedding, where the file holds their gradients."""
        return tuple(range(len(self.embedding))) if self.is_differentiable else ()

    def combine(self, logits: NDArray[np.floating[Any]]) -> Combined:
        """Returns the cosines of embeddings (N, D), and their derivatives; NaN where an embedding is 0."""
        embeddings, reference = logits.astype(np.float64), self.embedding.astype(np.float64)
        direction = reference / np.linalg.norm(reference)
        with np.errstate(invalid="ignore", divide="ignore"):
            lengths = np.linalg.norm(embeddings, axis=1, keepdims=True)
            units = embeddings / lengths
            cosines = units @ direction
            return Combined(cosines, (direction - cosines[:, None] * units) / lengths)

    @property
    def logit_name(self) -> str:
        """The word for what gradients are of."""
        return "cosine similarity"

    def refuse_gradient(self, title: str) -> MasktoolError:
        """Returns the error for a method that needs gradients, which this output has none of in the file."""
        return MasktoolError(
            f"{title} needs gradients of the embedding, and files hold those of the class output",
            where=f"output {self.output_name!r}",
            fix="export with "
            + parameter("class_output", self.output_name)
            + ", or take a method that hides parts, such as occlusion",
        )

    def holds(self, outputs: ModelOutputs) -> NDArray[np.bool_]:
        """Returns whether the image and the reference still point the same way, (M,)."""
        return self.read(outputs) > 0


def embeddings_of(outputs: ModelOutputs, output: str) -> NDArray[np.float64]:
    """Returns the embeddings (M, D) in an output, whatever the axes of its rows."""
    values = outputs.values[output]
    return np.asarray(values, np.float64).reshape(len(values), -1)


def choose_embedding(session: MaskedSession, output: str | None) -> str:
    """Returns the name of the output that holds embeddings: the one that was named, or the only one.

    Raises:
        MasktoolError: there is no such output, or none was named of several.
    """
    if output is not None:
        return session.check_output(output)
    own = [name for name in session.output_names if name not in FEATURE_MAP_OUTPUTS]
    if len(own) > 1:
        raise TargetError(
            "several outputs may be the embedding",
            where=session.path,
            got=session.describe_outputs(),
            fix="say which: " + parameter("output", Placeholder("NAME")),
        )
    return own[0]


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
