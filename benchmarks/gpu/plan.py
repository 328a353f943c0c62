"""What is measured, in which order, and in how much of the time."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.gpu.jobs import WORKER, Budget, Job, Outcome, run_job
from benchmarks.gpu.networks import PLAIN, missing_files
from masktool.execution_providers import CPU, PROVIDERS, ExecutionProvider
from masktool.runtime.providers import find_missing_build, has_provider

WEIGHTS: Mapping[str, float] = {"prepare": 12, "reference": 2, "passes": 12, "memory": 2}
"""Shares of the time that jobs of a task are expected to take; what one does not use falls to those behind it."""
SLACK: Mapping[str, float] = {"prepare": 3, "reference": 4, "passes": 1, "memory": 3}
"""How many times its share a job may take. Passes fill whatever they get; the others do one thing, and without it what
is behind them is worth less."""
OF_A_NETWORK = ("prepare", "reference")
"""Tasks that are done once for a network, whatever the provider."""
FEWEST_SECONDS = 3.0
"""Seconds below which no job is begun: a process needs as many to begin with."""
SECONDS_TO_PROVE = 60.0
"""Most seconds that a provider gets to load and to run a tiny network."""
IN_MEMORY_OF = (PLAIN, "masked", "gradient")
"""Variants whose memory is measured."""
Say = Callable[[str], None]


def find_providers(
    named: Sequence[str], job: Job, budget: Budget, say: Say, command: Sequence[str] = WORKER
) -> dict[str, dict[str, Any]]:
    """Returns for each provider that is asked for, and the CPU, whether it loads, and why it is not measured.

    Args:
        named: masktool's names of the providers that are asked for; empty for all but those taken by name only.
        job: what all jobs share.
        budget: time that is left.
        say: function that is called with a line of progress.
        command: command that runs a job.
    """
    found: dict[str, dict[str, Any]] = {}
    asked = [each for each in PROVIDERS if each != CPU and (not named or each.name in named)]
    for provider in (CPU, *asked):
        if reason := find_obstacle(provider, named):
            found[provider.name] = {"loads": False, "reason": reason}
        elif provider == CPU:
            found[provider.name] = {"loads": True}
        else:
            say(f"{provider.title}: does it load?")
            own = dataclasses.replace(job, task="prove", provider=provider.name)
            outcome = run_job(own, min(budget.left() / 4, SECONDS_TO_PROVE), command)
            found[provider.name] = judge_provider(outcome, named)
        if "reason" in found[provider.name]:
            say(f"{provider.title}: {found[provider.name]['reason']}")
    return found


def judge_provider(outcome: Outcome, named: Sequence[str]) -> dict[str, Any]:
    """Returns what a provider showed, with a reason where it is not measured: it fails, or no GPU is behind it."""
    found = {"loads": False, **outcome.findings}
    if not found["loads"]:
        return {"reason": outcome.failure, **found}
    if found.get("lists a GPU", True) or named:
        return found
    return {"reason": "loads, but lists no GPU: left out unless it is asked for", **found}


def find_obstacle(provider: ExecutionProvider, named: Sequence[str]) -> str | None:
    """Returns why a provider is not even tried; None where it is."""
    if sys.platform not in provider.systems:
        return f"is for {', '.join(provider.systems)} alone"
    if not has_provider(provider):
        return find_missing_build(provider)
    if provider.by_name_only and provider.name not in named:
        return f"left out unless it is asked for: it {provider.by_name_only}"
    return None


def choose_measured(named: Sequence[str], found: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Returns the providers that are measured: those with no reason against, or the CPU: if named or in want of any."""
    loading = [name for name, each in found.items() if "reason" not in each and name != CPU.name]
    return [CPU.name, *loading] if CPU.name in named or not (named or loading) else loading


def list_jobs(networks: Sequence[str], providers: Sequence[str], job: Job) -> list[Job]:
    """Returns all jobs in their order, network by network, so that what time cuts off is whole networks."""

    def jobs_of(network: str) -> Iterator[Job]:
        own = dataclasses.replace(job, network=network)
        if missing_files(Path(job.folder), network, providers):
            yield dataclasses.replace(own, task="prepare", providers=tuple(providers))
        yield dataclasses.replace(own, task="reference")
        for provider in providers:
            yield dataclasses.replace(own, task="passes", provider=provider)
            for variant in IN_MEMORY_OF:
                yield dataclasses.replace(own, task="memory", provider=provider, variant=variant)

    return [each for network in networks for each in jobs_of(network)]


def run_jobs(
    jobs: Sequence[Job],
    budget: Budget,
    save: Callable[[Mapping[str, Any]], None],
    say: Say,
    command: Sequence[str] = WORKER,
) -> dict[str, Any]:
    """Runs jobs within the time that is left, and returns what they found by network.

    Args:
        jobs: jobs in their order.
        budget: time that is left.
        save: function that is called with everything that was found so far, after each job.
        say: function that is called with a line of progress.
        command: command that runs a job.
    """
    results: dict[str, Any] = {job.network: {"providers": {}} for job in jobs}
    for place, job in enumerate(jobs):
        network = results[job.network]
        name = name_job(job)
        share = budget.share([WEIGHTS[each.task] for each in jobs[place:]])
        seconds = min(share * SLACK[job.task], budget.left())
        if "failure" in network:
            continue
        if seconds < FEWEST_SECONDS:
            outcome = Outcome({}, f"left out: {seconds:.1f} s were left for it", 0.0)
        else:
            say(f"{name}: {seconds:.0f} s at most")
            outcome = run_job(job, seconds, command)
        record(network, job, outcome)
        for line in describe_troubles(name, outcome):
            say(line)
        save(results)
    return results


def name_job(job: Job) -> str:
    """Returns a job's name in lines of progress."""
    if job.task in OF_A_NETWORK:
        return f"{job.network}, {job.task}"
    return f"{job.provider}, {job.network}, " + (f"memory, {job.variant}" if job.task == "memory" else job.task)


def record(network: dict[str, Any], job: Job, outcome: Outcome) -> None:
    """Puts what a job found where it belongs in the results of its network."""
    found = dict(outcome.findings) | {"job's seconds": round(outcome.seconds, 1)}
    if outcome.failure:
        found["failure"] = outcome.failure
    if job.task in OF_A_NETWORK:
        network[job.task] = found
        if outcome.failure and job.task == "reference":  # without it nothing can be judged
            network["failure"] = f"{job.task}: {outcome.failure}"
        return
    own = network["providers"].setdefault(job.provider, {})
    if job.task == "memory":
        own.setdefault("memory", {})[job.variant] = found
    else:
        own.update(found)


def describe_troubles(name: str, outcome: Outcome) -> Iterator[str]:
    """Yields what went wrong in a job or was left out of it, the gravest first."""
    for what, parity in outcome.findings.get("parity", {}).items():
        if not parity["within"]:
            yield (
                f"!!! {name}: {what} differs from the CPU by {show_difference(parity)} of the largest number, beyond "
                f"{parity['limit']:g}: NOT TIMED"
            )
    if outcome.failure:
        yield f"{name}: {outcome.failure}"
    for what, why in outcome.findings.get("left_out", {}).items():
        yield f"{name}: {what} left out: {why}"


def show_difference(parity: Mapping[str, Any]) -> str:
    """Returns a relative difference in words."""
    difference = parity["difference"]
    return "no finite part" if difference is None else f"{difference:.1e}" if difference else "0"


def is_beyond(results: Mapping[str, Any]) -> bool:
    """Tells whether something differs from the CPU by more than its limit."""
    parities = [
        parity
        for network in results.values()
        for found in network["providers"].values()
        for parity in found.get("parity", {}).values()
    ]
    return not all(parity["within"] for parity in parities)


def is_empty(results: Mapping[str, Any]) -> bool:
    """Tells whether nothing was timed."""
    return not any(
        found.get("seconds per batch") for network in results.values() for found in network["providers"].values()
    )
