"""`edgedistill build` and `edgedistill plan`."""

from __future__ import annotations

import json
import signal
import sys
from typing import Any, NoReturn

import click

from edgedistill.cli.options import JOB, pairs
from edgedistill.job import Job, named


def _job(flags: dict[str, Any]) -> Job:
    flags["limits"] = pairs(flags.pop("limits"), "--limit")
    flags["settings"] = pairs(flags.pop("settings"), "--set")
    return named(**flags)


@click.command()
@JOB
@click.option("-v", "--verbose", count=True, help="Say more.")
@click.option("-q", "--quiet", is_flag=True, help="Only the result.")
def build(as_json: bool, verbose: int, quiet: bool, **flags: Any) -> None:
    """Build the best model that fits the target, and prove it by measurement."""
    from edgedistill import report as reports
    from edgedistill.builder import driver
    from edgedistill.cli.show import Printer
    from edgedistill.store import crew

    if crew.follows():
        _follow(_job(flags))
    with Printer(quiet=quiet, verbose=verbose) as printer:
        report = driver.build_job(_job(flags), printer)
    if as_json:
        click.echo(json.dumps(report.record))
    else:
        click.echo(reports.table(report.record, width=_width(), color=_color()))
        for line in report.closing():
            click.echo(line)
    sys.exit(report.exit_code)


def _follow(job: Job) -> NoReturn:
    """Train along as one of torchrun's processes; a signal ends it, even inside of torch."""
    from edgedistill.builder import driver

    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, signal.SIG_DFL)
    driver.follow_job(job)
    sys.exit(0)


@click.command()
@JOB
@click.option("-v", "--verbose", count=True, help="Show settings of every step.")
@click.option("-q", "--quiet", is_flag=True, help="Only the steps.")
def plan(as_json: bool, verbose: int, quiet: bool, **flags: Any) -> None:
    """Show what a build would do, in which order, and what is in the store; run nothing."""
    from edgedistill.builder.planned import plan_job
    from edgedistill.cli.show import plainly

    planned = plan_job(_job(flags))
    if as_json:
        click.echo(json.dumps(planned.record()))
        return
    for line in planned.lines(verbose=bool(verbose), quiet=quiet):
        click.echo(plainly(line))


def _width() -> int:
    import shutil

    return shutil.get_terminal_size((110, 40)).columns


def _color() -> bool:
    import os

    return sys.stdout.isatty() and "NO_COLOR" not in os.environ
