"""The command and the job file that repeat a build, as lines of text."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any


def arguments(command: str) -> list[str]:
    """Cut a command between its arguments, each option with its value: where a line may wrap."""
    return re.findall(r"--\S+(?: (?!-)(?:'[^']*'|\S)+)?|(?:'[^']*'|\S)+", command)


def job_file(job: Mapping[str, Any]) -> list[str]:
    """Write a job as the lines of a TOML file; what is unset is left out."""
    lines = [f"{_key(k)} = {_toml(v)}" for k, v in job.items() if _is_value(v)]
    for name, table in job.items():
        if isinstance(table, Mapping) and table:
            inner = {
                f"{_key(name)}.{_key(k)}" if isinstance(v, Mapping) else k: v
                for k, v in table.items()
            }
            flat = {k: v for k, v in inner.items() if _is_value(v)}
            if flat:
                lines += [*([""] if lines else []), f"[{_key(name)}]"]
                lines += [f"{_key(k)} = {_toml(v)}" for k, v in flat.items()]
            for key, deep in inner.items():
                if isinstance(deep, Mapping) and deep:
                    lines += [*([""] if lines else []), f"[{key}]"]
                    lines += [f"{_key(k)} = {_toml(v)}" for k, v in deep.items() if v is not None]
    return lines


def _is_value(value: Any) -> bool:
    return value is not None and not isinstance(value, Mapping) and value != []


def _key(name: str) -> str:
    bare = name.replace("_", "").replace("-", "").isalnum() and name.isascii()
    return name if bare else json.dumps(name)


def _toml(value: Any) -> str:
    if isinstance(value, Mapping):
        inner = ", ".join(f"{_key(k)} = {_toml(v)}" for k, v in value.items() if v is not None)
        return "{" + inner + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value, ensure_ascii=False)
