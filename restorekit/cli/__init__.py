"""The command ``restorekit``: a thin layer over the Python API, one file a verb.

Exit codes: 0 all done, 1 some images failed, 2 nothing could start. Results go to disk, words and
progress to stderr, ``--json`` to stdout.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from restorekit import __version__
from restorekit.cli import check, compare, datasets, doctor, eval, lists, models, run, train, web
from restorekit.errors import RestorekitError

app = typer.Typer(
    name="restorekit",
    help="Image restoration and HDR: RAW files, brackets and photographs in, finished pictures out.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("run", no_args_is_help=True)(run.run)
app.command("check", no_args_is_help=True)(check.check)
app.command("explain", no_args_is_help=True)(check.explain)
app.add_typer(lists.pipelines, name="pipelines")
app.add_typer(lists.stages, name="stages")
app.add_typer(models.models, name="models")
app.add_typer(datasets.datasets, name="datasets")
app.command("compare", no_args_is_help=True)(compare.compare)
app.command("eval", no_args_is_help=True)(eval.evaluate)
app.command("train", no_args_is_help=True)(train.train)
app.command("web")(web.web)
app.command("doctor")(doctor.doctor)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"restorekit {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Entry point of the command: errors become one line on stderr and exit code 2."""
    try:
        app()
    except RestorekitError as error:
        typer.echo(str(error), err=True)
        sys.exit(2)
    except OSError as error:
        typer.echo(f"{error.filename or 'restorekit'}: {error.strerror or error}", err=True)
        sys.exit(2)
    except KeyboardInterrupt:
        typer.echo("interrupted", err=True)
        sys.exit(1)
