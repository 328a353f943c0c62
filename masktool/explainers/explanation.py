"""The result of an explanation: the map, its target and how it was made; as a picture, as JSON, as arrays."""

from __future__ import annotations

import dataclasses
import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin

from masktool.contract import DEFAULT_SIZE, Size
from masktool.errors import MasktoolError
from masktool.explainers.number_pictures import Words, draw_numbers
from masktool.explainers.picture import draw_picture
from masktool.explainers.subject import Picture
from masktool.explainers.target import ClassScore, Place, SettledTarget
from masktool.explainers.targets.class_target import SettledClass
from masktool.explainers.targets.output_value import SettledValue
from masktool.files import atomic_path
from masktool.limits import limit
from masktool.option_checks import check_several
from masktool.runtime.pictures import PNG_KEY

FORMATS = ("png", "json", "npz")
SCHEMA = "masktool.explanation/1"
NUMBER = "%.6g"
"""Format of numbers in JSON: float32 carries seven digits, the last one noise; six are the same on every machine."""
PNG_EFFORT = 4
"""zlib's level: of a picture of 1008 x 609 it makes 276 kB in .04 s, where Pillow's ``optimize`` makes 242 in 1 s."""
LARGE = "attributions, {:,} numbers, are not in JSON: model_attributions over crop_box say the same; npz has them"


@dataclasses.dataclass(frozen=True, eq=False)
class Explanation:
    """Which parts of a photograph a model's score for one class relied on.

    Attributes:
        attributions: the map, (H0, W0) float32 in the original photograph's pixels, in units of the score; NaN where
            the crop left pixels out. Of a signal (L,), of a volume (D, H, W).
        model_attributions: the map, (h, w) float32 in the pixels of the model's input.
        segments: the segments, (h, w) int32 labels from 0; None where the method works on none.
        target: the index of the explained class, of a contrast that of the first; of several classes their indices; or
            the indices of the explained value of ``output``, or its part as text.
        label: the label of the explained class, or value of ``output``; None where there is none.
        scores: the scores of the five highest classes and the target, the highest first; or that of what is explained
            of ``output`` alone.
        score_name: what the scores are: "probability", "log-odds", "score" where the file does not say what the class
            output holds, or "value" of ``output``; of a contrast, "difference of logits" or what else it is taken of.
        method: the name of the method.
        title: the method's name as written in the literature.
        meaning: what an attribution is, in words.
        signed: whether the sign of an attribution separates support from opposition.
        settings: every option, defaults included, with seed, batch, threads and providers.
        quality: figures by which to judge the map: ``attributions_error`` is the root mean square of the map's
            Monte-Carlo standard error, ``attributions_range`` its maximum minus its minimum; ``completeness_gap`` is
            what the map lacks to sum to ``completeness_total``, both in units of the target's logit.
        seconds: the wall time of the run; targets that were explained together share the run.
        forward_passes: the number of images pushed through the model in the run.
        model: ``source``, ``source_sha256``, ``masking``, ``rule``, ``parity`` and ``tool_version`` of the exported
            file; of one whose scores are corrected where something is missing, ``calibration`` too.
        image: the photograph, or an array's channels as a picture, in RGB; of a signal or a volume its numbers, (C, L)
            or (C, D, H, W) float32.
        output: the name of the output that holds the explained value; None for a class.
        notes: what the reader of the map must know, one sentence each.
        capped: whether the picture's colours end below the largest values, which a few pixels hold.
        crop_box: the box that ``model_attributions`` cover, (x0, y0, x1, y1) in the photograph's pixels.
        asked: the target in full; None where ``target``, ``label`` and ``output`` say all.
        value: the target's score with nothing missing; None where it stands among ``scores``.
        ranked_name: what ``scores`` are; None where they are what ``score_name`` says.
    """

    attributions: NDArray[np.float32]
    model_attributions: NDArray[np.float32]
    segments: NDArray[np.int32] | None
    target: int | Place | str
    label: str | None
    scores: tuple[ClassScore, ...]
    score_name: str
    method: str
    title: str
    meaning: str
    signed: bool
    settings: Mapping[str, Any]
    quality: Mapping[str, float]
    seconds: float
    forward_passes: int
    model: Mapping[str, Any]
    image: Picture = dataclasses.field(repr=False)
    output: str | None = None
    notes: tuple[str, ...] = ()
    capped: bool = False
    crop_box: tuple[float, float, float, float] | None = None
    asked: SettledTarget | None = None
    value: float | None = None
    ranked_name: str | None = None

    @property
    def question(self) -> SettledTarget:
        """The target in full, which tells apart the explanations of one image and method."""
        if self.asked is not None:
            return self.asked
        if self.output is not None:
            place = self.target if isinstance(self.target, tuple) else (self.target,)
            return SettledValue(place, output_name=self.output)  # type: ignore[arg-type]  # a class has no output
        return SettledClass(self.target, self.label)  # type: ignore[arg-type]  # and one index

    @property
    def name(self) -> str:
        """The target in words: a label, ``class 3``, ``boxes[5, 0]`` or ``cat against dog``."""
        return self.question.name

    @property
    def score(self) -> float:
        """The target's score with nothing missing."""
        if self.value is not None:
            return self.value
        return next(each.score for each in self.scores if each.index == self.target)

    @property
    def image_size(self) -> Size:
        """(height, width) of the photograph in pixels; of a signal (length,), of a volume (depth, height, width)."""
        return self.attributions.shape

    def describe_image(self) -> dict[str, Any]:
        """Returns the size of the photograph, signal or volume, as JSON values."""
        if len(self.image_size) != len(DEFAULT_SIZE):
            return {"size": list(self.image_size)}
        return {"height": self.image_size[0], "width": self.image_size[1], "crop_box": self.crop_box}

    @property
    def relative_error(self) -> float | None:
        """Standard error as a share of the map's range; None for a method without random choices or a flat map."""
        if "attributions_error" not in self.quality or self.quality["attributions_range"] == 0:
            return None
        return self.quality["attributions_error"] / self.quality["attributions_range"]

    def summary(self) -> dict[str, Any]:
        """Returns everything but the arrays and the timing, as JSON values."""
        return {
            "schema": SCHEMA,
            "method": self.method,
            "meaning": self.meaning,
            "target": {**self.question.describe(), self.score_name: self.score},
            "scores": [
                {"index": each.index, "label": each.label, self.ranked_name or self.score_name: each.score}
                for each in self.scores
            ],
            "settings": dict(self.settings),
            "quality": dict(self.quality),
            "notes": [*self.notes, *([LARGE.format(self.attributions.size)] if self.too_large else [])],
            "forward_passes": self.forward_passes,
            "image": self.describe_image(),
            "model": dict(self.model),
        }

    @property
    def too_large(self) -> bool:
        """Whether a JSON document leaves out the map in the photograph's pixels."""
        return self.attributions.size > limit("json")

    def json_pieces(self, extra: Mapping[str, Any] | None = None, timing: bool = True) -> Iterator[str]:
        """Yields the JSON document piece by piece: a map of a large photograph is long.

        Args:
            extra: more entries, which come first in the document; None adds none.
            timing: whether the document says how long the run took, which no other run repeats.
        """
        yield encode_compactly({**(extra or {}), **self.summary()})[:-1]
        for name in ("attributions", "model_attributions", "segments"):
            yield f',"{name}":'
            yield from encode_map(None if name == "attributions" and self.too_large else getattr(self, name))
        yield f',"timing":{encode_compactly({"seconds": self.seconds})}}}' if timing else "}"

    def to_json(self, extra: Mapping[str, Any] | None = None) -> str:
        """Returns one compact JSON document; the same run gives the same bytes, apart from the key ``timing``.

        Args:
            extra: more entries, which come first in the document; None adds none.
        """
        return "".join(self.json_pieces(extra))

    def to_npz(self) -> bytes:
        """Returns the arrays as a compressed ``.npz``, with the rest of the JSON document under ``explanation``."""
        arrays: dict[str, NDArray[Any]] = {
            "attributions": self.attributions,
            "model_attributions": self.model_attributions,
            "explanation": np.array(encode_compactly(self.summary())),
        }
        if self.segments is not None:
            arrays["segments"] = self.segments
        stream = io.BytesIO()
        np.savez_compressed(stream, allow_pickle=False, **arrays)
        return stream.getvalue()

    def plot(self, image: Image.Image | None = None) -> Image.Image:
        """Draws the photograph and the map over it, with a title and a colour bar.

        A signal is drawn as lines over the map, a volume as three slices, a video as a sheet of frames.

        Args:
            image: another photograph of the same size to draw beneath the map; None takes ``self.image``.

        Raises:
            MasktoolError: ``image`` has another size than the explained photograph, or what is explained is none.
        """
        words = Words(
            title=f"{self.title}: {self.question.title}, {self.score_name} {self.score:.3g}",
            subtitle=self.subtitle(),
            meaning=self.meaning,
        )
        if not isinstance(self.image, Image.Image):
            if image is not None:
                raise MasktoolError("a photograph beneath the map of none", expected="no image")
            return draw_numbers(self.image, self.attributions, signed=self.signed, words=words, capped=self.capped)
        image = self.image if image is None else image
        height, width = self.image_size
        if image.size != (width, height):
            raise MasktoolError("photograph of another size", expected=f"{width} x {height}", got=image.size)
        return draw_picture(
            image,
            self.attributions,
            signed=self.signed,
            title=words.title,
            subtitle=words.subtitle,
            meaning=words.meaning,
            capped=self.capped,
            region=None if self.crop_box is None else self.question.region_pixels((height, width), self.crop_box),
            marks=self.question.marks,
        )

    @property
    def cost(self) -> str:
        """The number of forward passes of the explanation, in words."""
        return f"{self.forward_passes} pass{'' if self.forward_passes == 1 else 'es'}"

    @property
    def masking(self) -> str:
        """How the mask acted, in words: ``fill masking``, ``layer masking, cell rule``, ``filled in bands 4-6``."""
        if (bands := self.settings.get("bands")) is not None:
            return f"filled in bands {bands}"
        rule = self.model.get("rule")  # explanations of other models than masktool's files have none
        return f"{self.model['masking']} masking" + ("" if rule is None else f", {rule} rule")

    def subtitle(self) -> str:
        """Returns one line on how the map was made."""
        parts = [self.cost, self.masking, str(self.model["source"])]
        if self.relative_error is not None:
            parts.insert(1, f"sampling error {self.relative_error:.1%} of range")
        if not self.question.includes(self.scores[0].index):
            top = self.scores[0]
            parts.append(f"top: {top.label or top.index} {top.score:.3g}")
        return " \N{MIDDLE DOT} ".join(parts)

    def save(
        self,
        directory: str | os.PathLike[str],
        formats: Sequence[str] = ("png",),
        stem: str = "explanation",
        *,
        timing: bool = True,
    ) -> list[Path]:
        """Writes ``directory/stem.FORMAT`` for every format and returns the paths.

        Args:
            directory: the directory to write into, made where it does not exist.
            formats: the formats to write: some of ``png``, ``json``, ``npz``.
            stem: the stem of the file names.
            timing: whether JSON says how long the run took, which no other run repeats.

        Raises:
            MasktoolError: an unknown format, or the directory cannot be written.
        """
        check_several("formats", formats)
        if unknown := sorted(set(formats) - set(FORMATS)):
            raise MasktoolError("unknown format", where=", ".join(unknown), expected=f"some of {', '.join(FORMATS)}")
        paths = []
        for suffix in formats:
            path = Path(directory) / f"{stem}.{suffix}"
            with atomic_path(path) as temporary:
                self.write(temporary, suffix, timing)
            paths.append(path)
        return paths

    def write(self, path: Path, suffix: str, timing: bool = True) -> None:
        """Writes the explanation in one format to a path; ``timing`` as for :meth:`save`."""
        if suffix == "json":
            with path.open("w", encoding="utf-8") as stream:
                stream.writelines(self.json_pieces(timing=timing))
                stream.write("\n")
        elif suffix == "npz":
            path.write_bytes(self.to_npz())
        else:
            text = PngImagePlugin.PngInfo()
            text.add_text(PNG_KEY, encode_compactly(self.summary()))
            self.plot().save(path, format="PNG", pnginfo=text, compress_level=PNG_EFFORT)


def encode_compactly(value: Any) -> str:
    """Returns compact JSON with numbers rounded to six digits, and NaN and infinity as null."""
    return json.dumps(round_floats(value), separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def round_floats(value: Any) -> Any:
    """Rounds every float in a nest of JSON values; NaN and infinity become None."""
    if isinstance(value, Mapping):
        return {str(key): round_floats(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [round_floats(each) for each in value]
    if isinstance(value, float | np.floating):
        return float(NUMBER % value) if np.isfinite(value) else None
    return value


def encode_map(values: NDArray[Any] | None) -> Iterator[str]:
    """Yields an array of any rank as JSON, row by row; NaN becomes null."""
    if values is None:
        yield "null"
        return
    if values.ndim == 1:
        yield "".join(encode_map(values[None]))[1:-1]
        return
    if values.ndim > len(DEFAULT_SIZE):
        for index, part in enumerate(values):
            yield "[" if index == 0 else ","
            yield from encode_map(part)
        yield "]"
        return
    template = ",".join([NUMBER if values.dtype.kind == "f" else "%d"] * values.shape[1])
    for index, row in enumerate(values):
        yield ("[" if index == 0 else ",") + "[" + (template % tuple(row.tolist())).replace("nan", "null") + "]"
    yield "]"
