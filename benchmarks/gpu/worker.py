"""One job in a process of its own: ``python -m benchmarks.gpu.worker JOB FINDINGS``."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from benchmarks.gpu.figures import finite
from benchmarks.gpu.jobs import Findings, Job, read_job
from benchmarks.gpu.networks import PLAIN, missing_files, write_plain, write_variant
from benchmarks.gpu.passes import measure_memory, measure_passes
from benchmarks.gpu.variants import leaving_out, write_reference
from masktool.errors import describe_exception


def prove_provider(job: Job, findings: Findings) -> None:
    """Opens a tiny masked network on a provider, and notes whether that loads and what it differs by from the CPU."""
    from masktool.execution_providers import know_provider
    from masktool.interface.provider_proof import ProviderProof
    from masktool.runtime.plugins import list_devices, lists_gpu

    provider = know_provider(job.provider)
    assert provider is not None
    with tempfile.TemporaryDirectory() as folder:
        proof, reason = ProviderProof(Path(folder)).run(provider)
    findings.add("loads", value=proof is not None)
    if proof is None:
        findings.add("reason", value=reason)
        return
    findings.add("difference from the CPU in a tiny network", value=finite(proof.difference))
    findings.add("seconds of the first run", value=finite(proof.first_seconds))
    if provider.needs_listed_gpu:  # it loads on a driver in software too
        findings.add("lists a GPU", value=lists_gpu(provider))
    with leaving_out(findings, "devices"):
        findings.add("devices", value=[str(each.device.metadata or each.device) for each in list_devices(provider)])


def prepare_network(job: Job, findings: Findings) -> None:
    """Writes the files of a network that are not there yet."""
    folder, end = Path(job.folder), time.monotonic() + job.seconds
    for variant in missing_files(folder, job.network, job.providers):
        if time.monotonic() > end:
            findings.leave_out(variant, "no time was left to export it")
            continue
        began = time.monotonic()
        if variant == PLAIN:
            write_plain(folder, job.network, job.size)  # without which there is nothing else
        else:
            with leaving_out(findings, variant):
                write_variant(folder, job.network, variant)
        findings.add("seconds", variant, value=finite(time.monotonic() - began))


TASKS: Mapping[str, Callable[[Job, Findings], None]] = {
    "prove": prove_provider,
    "prepare": prepare_network,
    "reference": write_reference,
    "passes": measure_passes,
    "memory": measure_memory,
}


def main() -> None:
    job, findings = read_job(sys.argv[1]), Findings(Path(sys.argv[2]))
    try:
        TASKS[job.task](job, findings)
    except Exception as error:  # whatever a provider raises is a finding
        findings.add("failure", value=describe_exception(error))
        raise


if __name__ == "__main__":
    main()
