"""What the table has no room for, of one row, as pairs of a name and a text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgedistill.report import words
from edgedistill.report.words import number, points


def beyond(row: Mapping[str, Any], whose: str = "teacher") -> list[tuple[str, str]]:
    """Return what the table has no room for, of one row."""
    latency, encode, graph = row["latency_ms"], row["encode_ms"], row["graph"]
    made = []
    if latency:
        names = [name for name in ("p50", "p90", "p99", "cold") if latency[name] is not None]
        told = ", ".join(f"{name} {number(latency[name])}" for name in names)
        low, high = number(latency["p90_low"]), number(latency["p90_high"])
        counts = words.counted(latency["runs"], "run"), words.counted(latency["rounds"], "round")
        spent = " in ".join(counts)
        made.append(("latency here, ms", f"{told} (p90 from {low} to {high}; {spent})"))
    if encode:
        told = ", ".join(f"{name} {number(value)}" for name, value in encode.items())
        made.append(("encoding, apart, ms", told))
    if row["load_ms"] is not None:
        made.append(("loading, ms", number(row["load_ms"])))
    if row["parameters"]:
        made.append(("parameters", f"{row['parameters']:,}"))
    if _learned(row):
        made.append(("training rows", _learned(row)))
    if words.unseen_words(row, whose):
        made.append(("unseen words", words.unseen_words(row, whose)))
    if row["scheme"]:
        made.append(("precision", f"{row['precision']}, {row['scheme']}"))
    if graph and graph["nodes"]:
        fused = ", ".join(f"{count} {name}" for name, count in (graph["fusions"] or {}).items())
        made.append(("graph", f"{graph['nodes']:,} nodes" + (f"; fused: {fused}" if fused else "")))
    if graph and graph.get("batched") and row["scheme"]:
        made.append(("batches", _batched(graph["batched"])))
    recovered = (graph or {}).get("recovered") or {}
    if recovered.get("floats") or recovered.get("milder"):
        made.append(("accuracy recovered", _recovered(recovered)))
    return made


def _learned(row: Mapping[str, Any]) -> str:
    """Say how much better a row answers what it was trained on than what it was not."""
    train, validation = row["score"]["train"], row["score"]["validation"]
    if not train or not validation:
        return ""
    gap = train["value"] - validation["value"]
    return (
        f"{points(train['value'])} on {train['rows']:,} of them, {points(validation['value'])} on "
        f"validation: a gap of {points(gap)} points"
    )


def _batched(told: Mapping[str, Any]) -> str:
    """Say how many answers padding and batch-mates change."""
    changed = number(told["changed_points"])
    return (
        f"{changed} % of {told['rows']:,} training rows are answered otherwise in padded batches "
        f"of {told['batch']} than alone"
    )


def _recovered(told: Mapping[str, Any]) -> str:
    """Say what int8 cost at first, and what it costs by what was set or left in float."""
    cost = f"int8 cost {points(told['before_points'])} points on {told['rows']:,} validation rows"
    said = [f"{words.plain(name, 60)}={value}" for name, value in told.get("milder", {}).items()]
    steps = [f"with {' and '.join(said)} {points(told['milder_points'])}"] if said else []
    if told.get("floats"):
        names = ", ".join(words.plain(name, 60) for name in told["floats"])
        count = f"with {len(told['floats'])} of {told['of']} operators in float again"
        steps.append(f"{count} {points(told['after_points'])} ({names})")
    return "; ".join([cost, *steps])
