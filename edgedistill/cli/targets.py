"""`edgedistill targets`."""

from __future__ import annotations

import json

import click

from edgedistill.cli.options import JSON


@click.command()
@click.argument("name", required=False, metavar="[NAME|FILE]")
@JSON
def targets(name: str | None, as_json: bool) -> None:
    """List the device profiles, or print one's file, with the reason of each number."""
    import dataclasses

    from edgedistill import plugins, target

    if as_json:
        wanted = [name] if name else plugins.names("targets")
        made = [dataclasses.asdict(target.load(one)) for one in wanted]
        click.echo(json.dumps(made[0] if name else made))
        return
    if name:
        path = target.find(name)
        target.load(path)  # a file of the user's own may be wrong
        click.echo(path.read_text(encoding="utf-8-sig"), nl=False)
        return
    for one in plugins.names("targets"):
        found = target.load(one)
        also = f" ({', '.join(found.aliases)})" if found.aliases else ""
        click.echo(f"{found.name + also:<20} {found.about}")
