"""``restorekit compare A B``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def compare(
    first: Annotated[Path, typer.Argument(metavar="A", help="An image file, the reference.")],
    second: Annotated[Path, typer.Argument(metavar="B", help="Another of the same size.")],
    fit_scale: Annotated[
        bool, typer.Option("--fit-scale", help="Two HDR files: multiply B by the one factor that fits it to A.")
    ] = False,
    white_nits: Annotated[
        float, typer.Option("--white-nits", min=0.001, help="Two HDR files: luminance of linear 1.0 in cd/m2.")
    ] = 203.0,  # color.transfer.DIFFUSE_WHITE_NITS, which would import torch for --help
    cvvdp: Annotated[
        bool, typer.Option("--cvvdp", help="ColorVideoVDP as well; needs the package cvvdp, and time.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")] = False,
) -> None:
    """Measure how two pictures differ.

    Two pictures: PSNR, SSIM, CIEDE2000, largest difference. Two HDR files (EXR, Radiance, PQ, HLG): PSNR and SSIM of
    PU21 values, mu-law PSNR, colour difference of BT.2124, error in stops, angle between RGB colours. An HDR file and
    an SDR picture of it: TMQI.
    """
    from restorekit.cli.run import print_json
    from restorekit.io import read
    from restorekit.metrics.compare import compare_frames

    if cvvdp:
        from restorekit.metrics.cvvdp import cvvdp_jod, package

        package()  # before the work that would be lost where it is absent
    frames = read(first), read(second)
    result = compare_frames(*frames, white_nits=white_nits, fit_scale=fit_scale)
    if cvvdp:
        result["cvvdp_jod"] = cvvdp_jod(*frames, white_nits)
    if as_json:
        print_json(result)
        return
    for name, value in result.items():
        said = "equal" if value is None else f"{value:.4f}" if isinstance(value, float) else value
        typer.echo(f"{name}: {said}")
