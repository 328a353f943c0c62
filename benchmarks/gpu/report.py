"""The figures as a table in Markdown, and its place in a page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.gpu.explanations import IN_MEMORY, METHODS, ON_DEVICE
from benchmarks.gpu.plan import show_difference

COMPARED = ("masked", "filled", "gradient", "fp16")
UNKNOWN = "–"
COLUMNS = (
    "provider, network",
    "differs from the CPU: masked, filled, gradient, fp16",
    "masked / plain",
    "gradient / plain",
    "masked images per second (batch)",
    "the same in fp16",
    "MiB on the host, on the device: plain, masked, gradient",
    *(f"{name}, s: on the device, in memory (passes)" for name in METHODS),
)


def write_table(report: Mapping[str, Any]) -> str:
    """Returns where the figures come from, and a table with one line for each provider and network."""
    machine, settings = report["machine"], report["settings"]
    gpus = machine["gpus"]
    named = gpus if isinstance(gpus, str) else "; ".join(", driver ".join(list(each.values())[:2]) for each in gpus)
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items() if "nvidia-" not in name)
    lines = [
        f"Measured on {report['date']} in {report['seconds'] / 60:.1f} minutes; GPUs: {named}; CPU: {machine['cpu']}, "
        f"{machine['cores']} cores; {versions}. Images of {settings['size']} pixels, random weights. Medians, with the "
        "lowest and the highest behind those of ratios.",
        "",
        *(row(cells) for cells in (COLUMNS, ["---"] * len(COLUMNS))),
    ]
    for network, results in report["networks"].items():
        for provider, found in results["providers"].items():
            lines.append(row(cells_of(f"{provider}, {network}", found)))
    return "\n".join([*lines, "", *say_missing(report)])


def row(cells: Any) -> str:
    """Returns a line of a table."""
    return f"| {' | '.join(cells)} |"


def cells_of(name: str, found: Mapping[str, Any]) -> list[str]:
    """Returns the cells of one provider and network."""
    ratios, memory = found.get("times the plain network", {}), found.get("memory", {})
    taken = [
        " / ".join(show_mebibytes(memory.get(variant, {}).get(place)) for variant in ("plain", "masked", "gradient"))
        for place in ("host MiB", "device MiB")
    ]
    return [
        name,
        ", ".join(show_parity(found.get("parity", {}).get(variant)) for variant in COMPARED),
        show_ratio(ratios.get("masked")),
        show_ratio(ratios.get("gradient")),
        *(show_speed(found.get("fastest batch", {}).get(variant)) for variant in ("masked", "fp16")),
        "; ".join(taken),
        *(show_explanation(found.get("explanations", {}).get(method)) for method in METHODS),
    ]


def show_parity(parity: Mapping[str, Any] | None) -> str:
    if parity is None:
        return UNKNOWN
    shown = show_difference(parity)
    return shown if parity["within"] else f"**{shown}: WRONG**"


def show_ratio(figure: Mapping[str, Any] | None) -> str:
    if figure is None:
        return UNKNOWN
    return f"{figure['median']:.2f} ({figure['lowest']:.2f} to {figure['highest']:.2f})"


def show_speed(found: Mapping[str, Any] | None) -> str:
    return UNKNOWN if found is None else f"{found['images per second']['median']:.4g} ({found['batch']})"


def show_mebibytes(value: Any) -> str:
    return f"{value:.0f}" if isinstance(value, int | float) else UNKNOWN


def show_explanation(found: Mapping[str, Any] | None) -> str:
    if found is None or IN_MEMORY not in found:
        return UNKNOWN
    both = [f"{found[way]['median']:.3g}" if way in found else UNKNOWN for way in (ON_DEVICE, IN_MEMORY)]
    return f"{', '.join(both)} ({found['passes']})"


def say_missing(report: Mapping[str, Any]) -> list[str]:
    """Returns lines that say which providers were not measured, and what else was not."""
    lines = [f"* {name}: {each['reason']}" for name, each in report["providers"].items() if "reason" in each]
    for network, results in report["networks"].items():
        if "failure" in results:
            lines.append(f"* {network}: {results['failure']}")
        for provider, found in results["providers"].items():
            missing = dict(found.get("left_out", {}))
            if "failure" in found:
                missing["the rest"] = found["failure"]
            lines += [f"* {provider}, {network}, without {what}: {why}" for what, why in missing.items()]
    return lines
