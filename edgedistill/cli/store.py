"""`edgedistill store list | show | drop | verify`."""

from __future__ import annotations

import json
import re
import sys
import time
from typing import Any

import click

from edgedistill.cli.options import JSON, STORE, Commands
from edgedistill.cli.show import Printer, plainly
from edgedistill.errors import UsageError


@click.group(cls=Commands, no_args_is_help=False)
def store() -> None:
    """Look after what builds have left: list, show, drop, verify."""


@store.command("list")
@STORE
@JSON
def list_(store: str | None, as_json: bool) -> None:
    """List what lies in the store, the least recently used first."""
    from edgedistill.store import inventory

    opened = _open(store)
    found = inventory.entries(opened)
    if as_json:
        click.echo(json.dumps([_plain(entry) for entry in found]))
        return
    for entry in found:
        click.echo(_line(entry))
    total = sum(entry.bytes for entry in found)
    yet = "" if opened.root.exists() else " (nothing is there yet)"
    click.echo(f"{_count(len(found))}, {total / 1e6:,.1f} MB in {opened.root}{yet}")


@store.command()
@click.argument("key")
@STORE
@JSON
def show(key: str, store: str | None, as_json: bool) -> None:
    """Show one entry: its settings, inputs, facts. KEY may be cut short."""
    from edgedistill.store import inventory

    entry, record = inventory.show(_open(store), key)
    if as_json:
        click.echo(json.dumps({**_plain(entry), "record": record}))
        return
    click.echo(f"{entry.stage} {entry.key}  {entry.state}  {entry.bytes / 1e6:.1f} MB")
    click.echo(json.dumps(record, indent=1, sort_keys=True))


@store.command()
@click.argument("names", nargs=-1, metavar="[KEY ...]")
@click.option("--stage", "stages", multiple=True, help="Only this stage's. Repeat for several.")
@click.option("--unused-for", metavar="TIME", help="Only what was not used for so long: 30d, 12h.")
@click.option("--down-to", metavar="SIZE", help="Until the store is no larger: 5GB, 500MB.")
@STORE
@JSON
def drop(
    names: tuple[str, ...],
    stages: tuple[str, ...],
    unused_for: str | None,
    down_to: str | None,
    **flags: Any,
) -> None:
    """Remove entries, never what a running build makes or reads."""
    from edgedistill.store import inventory

    found = inventory.drop(
        _open(flags["store"]),
        names,
        stages=stages,
        unused_for_s=None if unused_for is None else _age(unused_for),
        total_bytes=None if down_to is None else _bytes(down_to),
    )
    if flags["as_json"]:
        document = {
            "dropped": [_plain(entry) for entry in found.dropped],
            "in_use": [_plain(entry) for entry in found.in_use],
        }
        click.echo(json.dumps(document))
        return
    for entry in found.dropped:
        click.echo(_line(entry))
    click.echo(f"dropped {_count(len(found.dropped))}, {found.bytes / 1e6:,.1f} MB")
    if found.in_use:
        click.echo(f"left {len(found.in_use)} that a running build uses")


@store.command()
@STORE
@JSON
def verify(store: str | None, as_json: bool) -> None:
    """Read and hash everything; exit 1 where something does not hold."""
    from edgedistill.store import inventory

    with Printer() as printer:
        wrong = inventory.verify(_open(store), printer)
    if as_json:
        click.echo(json.dumps([{**_plain(entry), "reason": why} for entry, why in wrong]))
    else:
        for entry, why in wrong:
            click.echo(f"{entry.stage} {entry.key[:12]}: {why} (the next build makes it again)")
        click.echo("everything holds" if not wrong else f"{len(wrong)} damaged")
    sys.exit(1 if wrong else 0)


def _open(root: str | None) -> Any:
    """Open a store that is there; the user's default one need not be yet."""
    from edgedistill.store import Store, inventory

    opened = Store(root)
    remark = inventory.remark(opened, named=root is not None)
    if remark:
        click.echo(f"{'warning':<11}{plainly(remark)}", err=True)
    return opened


def _line(entry: Any) -> str:
    day = time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.used))
    took = "" if entry.seconds is None else f"{entry.seconds:8.1f} s"
    state = "" if entry.state == "whole" else f"  {entry.state}"
    size = f"{entry.bytes / 1e6:9.1f} MB"
    return f"{entry.stage:<11}{entry.key[:12]}  {size}{took:>11}  {day}{state}"


def _count(entries: int) -> str:
    return f"{entries:,} {'entry' if entries == 1 else 'entries'}"


def _plain(entry: Any) -> dict[str, Any]:
    import dataclasses

    return {**dataclasses.asdict(entry), "path": str(entry.path)}


def _age(text: str) -> float:
    """Read an age in seconds. A bare number has no unit that all would guess: it is refused."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([smhd])\s*", text)
    if not match or not float(match[1]):
        raise UsageError(
            f"--unused-for: expected a time with its unit, such as 30d or 12h, got '{text}'"
        )
    return float(match[1]) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[match[2]]


def _bytes(text: str) -> int:
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(B|kB|MB|GB|TB)\s*", text)
    if not match:
        raise UsageError(
            f"--down-to: expected a size with its unit, such as 500MB or 5GB, got '{text}'"
        )
    return int(float(match[1]) * {"B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}[match[2]])
