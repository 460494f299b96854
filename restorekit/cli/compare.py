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
    html: Annotated[
        Path | None,
        typer.Option(
            "--html", metavar="FILE", help="Write a page to look at: before and after, differences, measures."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")] = False,
) -> None:
    """Measure how two pictures differ.

    Two pictures: PSNR, SSIM, CIEDE2000, largest difference. Two HDR files (EXR, Radiance, PQ, HLG): PSNR and SSIM of
    PU21 values, mu-law PSNR, colour difference of BT.2124, error in stops, angle between RGB colours. An HDR file and
    an SDR picture of it: TMQI.
    """
    from restorekit.cli.run import print_json
    from restorekit.comparison_page import as_text, write_page
    from restorekit.io import read
    from restorekit.metrics.compare import compare_frames

    _check_inputs(first, second)
    if html is not None:
        _check_target(html, first, second)
    if cvvdp:
        from restorekit.metrics.cvvdp import cvvdp_jod, package

        package()  # before the work that would be lost where it is absent
    frames = read(first), read(second)
    result = compare_frames(*frames, white_nits=white_nits, fit_scale=fit_scale)
    if cvvdp:
        result["cvvdp_jod"] = cvvdp_jod(*frames, white_nits)
    if as_json:
        print_json(result)
    else:
        for name, value in result.items():
            typer.echo(f"{name}: {as_text(value)}")
    if html is not None:
        write_page(html, *frames, result, white_nits=white_nits)
        typer.echo(f"page: {html}", err=True)


def _check_inputs(first: Path, second: Path) -> None:
    """Raise InputError for folders, with the command that measures them where both are."""
    from restorekit.errors import InputError

    folders = [path for path in (first, second) if path.is_dir()]
    if folders:
        cure = f"; for all their pairs: restorekit eval input {first} --inputs {second}" if len(folders) == 2 else ""
        raise InputError(f"{folders[0]}: is a folder; compare takes two files{cure}")


def _check_target(html: Path, *inputs: Path) -> None:
    """Raise OutputError for a page that cannot be written, before the work that would be lost."""
    from restorekit.errors import OutputError

    if html.is_dir():
        raise OutputError(f"{html}: is a folder; name the file to write, for instance {html / 'comparison.html'}")
    if not html.absolute().parent.is_dir():
        raise OutputError(f"{html}: there is no folder {html.parent}; create it first")
    if html.resolve() in [path.resolve() for path in inputs]:
        raise OutputError(f"{html}: is one of the pictures; name another file for the page")
