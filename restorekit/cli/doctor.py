"""``restorekit doctor``."""

from __future__ import annotations

from typing import Annotated

import typer


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")] = False,
) -> None:
    """Look for the usual problems of an installation and say the cure. Exit code 1 if there are any.

    The verdict stands first, then problems, notes, versions and the machine. Notes tell of optional parts that are not
    there.
    """
    from restorekit.cli.run import print_json
    from restorekit.doctor import findings, machine
    from restorekit.report import versions

    found = list(findings())
    problems = [finding.text for finding in found if finding.problem]
    notes = [finding.text for finding in found if not finding.problem]
    if as_json:
        print_json({"versions": versions(), "machine": machine(), "problems": problems, "notes": notes})
        raise typer.Exit(1 if problems else 0)
    count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
    typer.echo(f"{count if problems else 'no problems'} found", err=True)
    for kind, texts in (("problem", problems), ("note", notes)):
        for text in texts:
            typer.echo(f"{kind}: {text}", err=True)
    for name, value in (versions() | machine()).items():
        typer.echo(f"{name:<24} {value}")
    raise typer.Exit(1 if problems else 0)
