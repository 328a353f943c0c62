"""``masktool doctor``: what is installed, what really works, and the command that mends the rest."""

from __future__ import annotations

import dataclasses
import json

import click

from masktool.commands.options import json_option
from masktool.interface import installation
from masktool.option_names import for_command_line
from masktool.printable import printable


@click.command("doctor")
@json_option
@click.pass_context
def command(context: click.Context, as_json: bool) -> None:
    """Show versions and providers, and how to mend what is broken.

    Each provider of ONNX Runtime that loads runs a small masked network, and its scores are compared with the CPU's.
    The exit code is 0 when an .onnx can be exported and explained with, 1 when something needed for that is broken.
    """
    findings = []
    for found in installation.doctor():
        finding = dataclasses.replace(found, fix=None if found.fix is None else for_command_line(found.fix))
        findings.append(finding)
        if not as_json:
            click.echo(printable(write_line(finding), keep="\n"))
    works = installation.works(findings)
    if as_json:
        document = {"works": works, "findings": [dataclasses.asdict(finding) for finding in findings]}
        click.echo(json.dumps(document, indent=2))
    else:
        click.echo("The main path works." if works else "Something needed is broken; mend it as written above.")
    context.exit(0 if works else 1)


def write_line(finding: installation.DoctorFinding) -> str:
    """Returns a finding as one line, with the fix on a second line."""
    line = f"{finding.state:8}  {finding.name:13}  {finding.detail}"
    if finding.fix:
        line += f"\n{'':10}{'':15}mend: {finding.fix}"
    return line
