"""``restorekit compare A B``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def compare(
    first: Annotated[Path, typer.Argument(metavar="A", help="An image file.")],
    second: Annotated[Path, typer.Argument(metavar="B", help="Another of the same size.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")] = False,
) -> None:
    """Measure how two pictures differ: PSNR, SSIM, CIEDE2000, largest difference."""
    from restorekit.cli.run import print_json
    from restorekit.io import read
    from restorekit.metrics.compare import compare_frames

    result = compare_frames(read(first), read(second))
    if as_json:
        print_json(result)
        return
    for name, value in result.items():
        said = "equal" if value is None else f"{value:.4f}" if isinstance(value, float) else value
        typer.echo(f"{name}: {said}")
