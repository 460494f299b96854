"""Watch a folder: every bracket that is finished becomes a picture.

    python apps/burst_watch.py FOLDER OUT [--pipeline bracket-fusion] [--settle 3] [--once]

Files are grouped as ``restorekit run`` groups them, by the time they were taken or by subfolder. A bracket counts as
finished when none of its files has changed for ``--settle`` seconds. What was made before is not made again, also after
a restart. ``--once`` does what is there and ends.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

import restorekit as rk
from restorekit.errors import InputError
from restorekit.jobs import Job, plan
from restorekit.runner import Runner


def finished(job: Job, settle_s: float) -> bool:
    """Whether no file of a bracket has changed for a while."""
    return all(time.time() - path.stat().st_mtime >= settle_s for path in job.inputs)


def develop(pipeline: rk.Pipeline, folder: Path, out: Path, settle_s: float) -> None:
    """Make the pictures of all finished brackets that have none yet."""
    try:
        wanted = plan(pipeline, [folder], out)
    except InputError:  # nothing there yet
        return
    jobs = tuple(job for job in wanted.jobs if job.action == "run" and finished(job, settle_s))
    for job, report in Runner(pipeline, replace(wanted, jobs=jobs, problems=())).run():
        print(f"{job.name}: {report.error or ', '.join(report.outputs)}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--pipeline", default="bracket-fusion")
    parser.add_argument("--settle", type=float, default=3.0, metavar="SECONDS")
    parser.add_argument("--once", action="store_true")
    options = parser.parse_args()
    pipeline = rk.Pipeline.load(options.pipeline)
    while True:
        develop(pipeline, options.folder, options.out, options.settle)
        if options.once:
            return
        time.sleep(1.0)


if __name__ == "__main__":
    main()
