"""Options that several commands share, and how their texts become values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from edgedistill.errors import UsageError, nearest

F = Callable[..., Any]


class Commands(click.Group):
    """A group that answers a wrong name with the nearest right one, whichever click it runs on."""

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        name, known = args[0], self.list_commands(ctx)
        if name not in known and not name.startswith("-"):
            ctx.fail(f"no such command '{name}': {nearest(name, known)}")
        return super().resolve_command(ctx, args)


def pairs(values: tuple[str, ...], flag: str) -> dict[str, str]:
    """Split NAME=VALUE texts.

    Raises `UsageError` for one without a name or a value, and for a name with two values.
    """
    made: dict[str, str] = {}
    for text in values:
        name, equals, value = text.partition("=")
        if not equals or not name.strip() or not value.strip():
            raise UsageError(f"{flag} '{text}': expected NAME=VALUE")
        name, value = name.strip(), value.strip()
        if made.get(name, value) != value:
            raise UsageError(f"{flag} {name} is given twice: {made[name]} and {value}")
        made[name] = value
    return made


def together(*options: F) -> F:
    """Make one decorator of several options, in the order in which help shows them."""

    def decorate(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


LIMIT = click.option(
    "--limit", "limits", multiple=True, metavar="NAME=VALUE", help="Override a limit."
)
STRICT = click.option(
    "--strict", is_flag=True, default=None, help="A limit that holds only closely is missed."
)
ON_DEVICE = click.option(
    "--on-device", is_flag=True, default=None, help="This machine is the device: no estimate."
)
ALLOW_CODE = click.option(
    "--allow-code", is_flag=True, default=None, help="Run plugin files that the job names."
)
STORE = click.option("--store", metavar="DIR", help="The store (default: the user's cache).")
JSON = click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")

JOB = together(
    click.argument("job_file", required=False, metavar="[JOB.toml]"),
    click.option("--target", metavar="T", help="Device profile: a name or a .toml file."),
    click.option("--model", metavar="M", help="The teacher: a folder or a hub id; or an .onnx."),
    click.option(
        "--data",
        multiple=True,
        metavar="D",
        help="The rows: a folder, a file or a hub id. Twice: a general set, and a small own one.",
    ),
    click.option("--task", metavar="T", help="The task, where columns don't tell."),
    click.option(
        "--student",
        multiple=True,
        metavar="S",
        help="Layers (2), a shape (2x256, 2x256v6000), static, same, or a checkpoint; repeat for "
        "several.",
    ),
    click.option("--recipe", metavar="R", help="How to distill: a name or a .toml file."),
    click.option(
        "--prune",
        metavar="P",
        help="What to keep of a trained student: 0.5, feed_forward=0.5, layers=2; or none.",
    ),
    click.option("--quantize", metavar="Q", help="auto, none, or a scheme's name."),
    LIMIT,
    click.option("--objective", metavar="O", help="latency, score or size."),
    STRICT,
    click.option(
        "--best-effort",
        is_flag=True,
        default=None,
        help="Bundle the best miss when nothing fits; still exit 1.",
    ),
    click.option("--private", is_flag=True, default=None, help="No rows in reports."),
    ON_DEVICE,
    click.option("--allow-pickle", is_flag=True, default=None, help="Load pickled checkpoints."),
    ALLOW_CODE,
    click.option(
        "--set", "settings", multiple=True, metavar="KEY=VALUE", help="Any setting, by its name."
    ),
    click.option("--seed", metavar="N", help="Of every random draw."),
    click.option("--threads", metavar="N", help="Of training, in all (default: the cores)."),
    click.option("--time-limit", metavar="T", help="For the whole build: 90s, 30m, 2h."),
    click.option("--out", metavar="DIR", help="The bundle's folder (default: dist/<target>)."),
    STORE,
    JSON,
)
