"""``restorekit doctor``."""

from __future__ import annotations

import typer

EXTRAS = (
    ("heif", "pillow_heif", "reads HEIC and HEIF"),
    ("lens", "lensfunpy", "lens corrections by lensfun"),
    ("spandrel", "spandrel", "checkpoints of more architectures"),
)
"""Optional parts: the extra's name, the module it brings, and what for."""


def doctor() -> None:
    """Look for the usual problems of an installation and say the cure. Exit code 1 if there are any."""
    import importlib
    import importlib.util
    import os
    import shutil
    import tempfile

    from restorekit import bundled
    from restorekit.errors import RestorekitError
    from restorekit.registry import stage_class, stage_entries
    from restorekit.report import versions
    from restorekit.schema import load

    problems: list[str] = []
    for name, version in versions().items():
        typer.echo(f"{name:<24} {version}")
    for module in ("torch", "rawpy", "imagecodecs", "OpenEXR", "cv2", "tifffile"):
        try:
            importlib.import_module(module)
        except ImportError as error:
            problems.append(
                f"{module} does not load ({error}); install restorekit again: pip install --force-reinstall restorekit"
            )
    for name in stage_entries():
        try:
            stage_class(name)
        except RestorekitError as error:
            problems.append(f"{error}; update or remove the package that brings it")
    for name in bundled.pipelines():
        try:
            load(name)
        except RestorekitError as error:
            problems.append(str(error))
    for extra, module, gives in EXTRAS:
        there = importlib.util.find_spec(module) is not None
        typer.echo(f"{'extra ' + extra:<24} {gives if there else f'absent ({gives}): pip install restorekit[{extra}]'}")
    from restorekit.device import describe

    typer.echo(f"{'processor':<24} {os.cpu_count()} threads")
    typer.echo(f"{'accelerator':<24} {describe()}")
    free = shutil.disk_usage(tempfile.gettempdir()).free / (1 << 30)
    typer.echo(f"{'free disk (temporary)':<24} {free:.1f} GiB")
    if free < 1:
        problems.append(f"only {free:.2f} GiB are free in {tempfile.gettempdir()}; make room or set TMPDIR")
    for problem in problems:
        typer.echo(f"problem: {problem}", err=True)
    typer.echo("no problems found" if not problems else f"{len(problems)} problems found", err=True)
    raise typer.Exit(1 if problems else 0)
