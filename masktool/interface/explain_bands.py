"""Which bands of an input mattered, by any model: :func:`explain_bands`."""

from __future__ import annotations

from typing import Any

from masktool.errors import MasktoolError
from masktool.explainers.bands.asking import explain_groups
from masktool.explainers.bands.band_explanation import BandExplanation
from masktool.explainers.bands.groups import BandsLike
from masktool.explainers.explanation_settings import SHARED_ARGUMENTS, ExplanationSettings
from masktool.explainers.stopping import STOPPING_ARGUMENTS, Stopping
from masktool.explainers.subject import ImageLike, read_subject
from masktool.explainers.target import TargetLike
from masktool.interface.explain import OPENING_ARGUMENTS, open_without_gradients
from masktool.interface.options import EXPORT_OPTIONS, ModelLike


def explain_bands(
    model: ModelLike | None,
    image: ImageLike,
    bands: BandsLike | None = None,
    target: TargetLike = None,
    **arguments: Any,
) -> BandExplanation:
    """Explains which bands of an image a model's score relied on, group by group.

    The bands of a group are replaced by a baseline, everywhere; no mask acts. Each group's Shapley value is exact for
    up to 8 groups, of which all sets are scored, and estimated from samples of sets for more.

    Args:
        model: the model, as for :func:`masktool.explain`.
        image: the image, as for :func:`masktool.explain`: an array (C, H, W), the path of a ``.npy`` file or of a TIFF
            of many bands, or a photograph, whose bands are its channels.
        bands: the groups of bands, such as ``"0-3,4-6"`` or ``[range(4), (4, 5, 6)]``; bands that are in none are
            always kept. None takes each band alone, of at most 16.
        target: the target, as for :func:`masktool.explain`.
        **arguments: further keyword arguments of :func:`masktool.explain` that are no options of a method.
            ``n_samples`` is the number of sets of groups, ``band_baseline`` what stands in a missing band: ``mean``
            (0 in the model's input), ``image-mean``, ``blur``, or numbers, one or one for each band.

    Returns:
        A number for each group, in units of the score, with all that is needed to repeat the run.

    Raises:
        MasktoolError: the image, the model, the target, a group or an option cannot be used.
    """
    rest = dict(arguments)
    opening = {name: rest.pop(name) for name in OPENING_ARGUMENTS if name in rest}
    shared = {name: rest.pop(name) for name in SHARED_ARGUMENTS if name in rest}
    stopping = Stopping(**{name: rest.pop(name) for name in STOPPING_ARGUMENTS if name in rest})
    of_export = {name: rest.pop(name) for name in EXPORT_OPTIONS if name in rest}
    if rest:
        expected = "arguments of masktool.explain that are no options of a method"
        raise MasktoolError("unknown argument of explain_bands", where=", ".join(sorted(rest)), expected=expected)
    n_samples = shared.pop("n_samples", None)
    settings = ExplanationSettings(**shared, bands=bands, stopping=stopping)
    picture = read_subject(image)
    with open_without_gradients(model, settings.input_size, {**opening, **of_export}) as session:
        (found,) = explain_groups(session, picture, [target], settings, n_samples)
    return found
