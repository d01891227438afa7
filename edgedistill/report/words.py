"""The words and numbers that all faces of the report share. Plain text; each face escapes it."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

from edgedistill.progress import told

VERDICTS = {"fits": "fits", "fits_closely": "fits closely", "misses": "misses a limit"}
STATES = {"holds": "holds", "close": "holds closely", "misses": "misses", "unchecked": "unchecked"}
LIMITS = {
    "max_drop_points": ("drop", "points"),
    "max_own_drop_points": ("drop on the own rows", "points"),
    "min_score_points": ("score", "points"),
    "worst_label_drop_points": ("largest loss of recall of a label", "points"),
    "latency_p90_ms": ("latency, p90 on the device", "ms"),
    "memory_mb": ("memory above a bare runtime", "MB"),
    "size_mb": ("size of the model file", "MB"),
    "load_ms": ("time to load", "ms"),
    "vanished_labels": ("labels that are never found any more", ""),
}
RATES = (
    ("fp32_gflops", "fp32", "GFLOP/s"),
    ("int8_gops", "int8", "GOP/s"),
    ("node_us", "a small node", "µs"),
    ("uncertainty", "uncertain by a factor of", ""),
)
# flags of a processor that matter to arithmetic
FAST = ("avx", "amx", "fma", "f16c", "sse4", "asimd", "neon", "sve", "i8mm", "bf16")
_LONG = 300


def plain(text: Any, limit: int = _LONG) -> str:
    """Return a user's text in one line, with control and direction marks written out."""
    whole = str(text)
    made = []
    for char in whole[:limit]:
        if unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp"):
            made.append(f"\\x{ord(char):02x}" if ord(char) < 256 else f"\\u{ord(char):04x}")
        else:
            made.append(char)
    return "".join(made) + ("…" if len(whole) > limit else "")


def number(value: float | None, digits: int = 2) -> str:
    """Write a figure in at least `digits` significant digits, never in powers of ten."""
    if value is None:
        return "–"
    if not value:
        return "0"
    power = math.floor(math.log10(abs(float(f"{value:.{digits - 1}e}"))))
    return f"{value:,.{max(0, digits - 1 - power)}f}"


def points(value: float | None) -> str:
    """Write a score, a drop or a share in points."""
    return "–" if value is None else f"{value:.1f}".replace("-0.0", "0.0")


def counted(number: int, what: str) -> str:
    """Write a number of things: "1 round", "2 rounds"."""
    return f"{number:,} {what}" + ("" if number == 1 else "s")


def compared(score: float, other: float, change: float) -> tuple[str, str, str]:
    """Write two scores and how far they lie apart, `change`, so that each tells the others.

    In tenths where their difference is the change in tenths too; else, where rounding alone parts
    them, in hundredths, and the change as the difference of what is written.
    """
    texts = (points(score), points(other), points(abs(change)))
    agree = math.isclose(abs(float(texts[0]) - float(texts[1])), float(texts[2]), abs_tol=1e-6)
    if agree or abs(abs(score - other) - abs(change)) > 0.01:
        return texts
    fine = (f"{score:.2f}", f"{other:.2f}")
    return (*fine, f"{abs(float(fine[0]) - float(fine[1])):.2f}")


def against(value: float | None, allowed: float, unit: str) -> str:
    """Write a figure of that unit so that its digits show on which side of a limit it lies."""
    if value is None:
        return "–"
    texts = []
    for digits in range(1, 6):
        texts.append(f"{value:.{digits}f}" if unit == "points" else number(value, digits + 1))
        near = float(texts[-1].replace(",", ""))
        if (near > allowed) == (value > allowed) and (near < allowed) == (value < allowed):
            break
    else:
        texts = texts[:1]  # as good as equal
    return texts[-1] if float(texts[-1].replace(",", "")) else texts[-1].lstrip("-")


def bound(check: Mapping[str, Any]) -> str:
    """Write what a check allows: "at most 25 MB"."""
    _, unit = limit_name(check["limit"])
    least = "at least" if check["limit"].startswith("min_") else "at most"
    return f"{least} {check['allowed']:,.10g} {unit}".strip()


def spread(interval: Mapping[str, Any] | None) -> str:
    """Write a score or a drop with half the width of its interval: "95.3 ±0.6"."""
    if not interval or interval.get("value") is None:
        return "–"
    low, high = interval.get("low"), interval.get("high")
    half = "" if low is None or high is None else f" ±{(high - low) / 2:.1f}"
    return points(interval["value"]) + half


def span(seconds: float | None) -> str:
    """Write a time for people, a dash where there is none."""
    return "–" if seconds is None else told(seconds)


def row_named(report: Mapping[str, Any], name: str | None) -> Mapping[str, Any] | None:
    """Return the row of that name, or None."""
    return next((row for row in report["rows"] if row["name"] == name), None)


def baseline(report: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the row that all others are held against."""
    return next((row for row in report["rows"] if row["role"] == "baseline"), None)


def source(report: Mapping[str, Any]) -> str:
    """Name what all rows are held against: a teacher, or an .onnx as the user gave it."""
    return "given model" if report["source_model"].get("kind") == "graph" else "teacher"


def shown(report: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the row that the report is about: the chosen one, else the best miss."""
    return row_named(report, report["chosen"] or report.get("best_miss"))


def p90(row: Mapping[str, Any]) -> float | None:
    """Return the p90 on this host, in ms."""
    return row["latency_ms"]["p90"] if row["latency_ms"] else None


def device_p90(row: Mapping[str, Any]) -> float | None:
    """Return the p90 on the device, in ms."""
    return row["device"]["latency_p90_ms"] if row["device"] else None


def estimated(report: Mapping[str, Any]) -> bool:
    """Say whether any device figure is an estimate."""
    return any(row["device"] and row["device"]["source"] == "estimate" for row in report["rows"])


def headline(report: Mapping[str, Any]) -> str:
    """Give the verdict in one line."""
    target, row = plain(report["target"].get("name") or "the target", 40), shown(report)
    if report["chosen"] is None:
        if row is None:
            return f"Nothing fits {target}: {plain(report['reason'])}"
        name = plain(row["name"], 80)
        return f"Nothing fits {target}; the best miss is {name}"
    name = plain(report["chosen"], 80)
    if report["verdict"] == "misses":
        if report.get("strict") and not any(c["state"] == "misses" for c in row["checks"]):  # type: ignore[index]
            return f"{name} fits {target} only closely, which --strict does not accept"
        return f"{name} was chosen, but misses a limit of {target}"
    return f"{name} fits {target}" + (", closely" if report["verdict"] == "fits_closely" else "")


def why(report: Mapping[str, Any]) -> str:
    """Give the reason of the verdict as far as the headline does not say it; else ""."""
    reason, missed = report["reason"] or "", report.get("best_miss")
    if report["chosen"] is None:
        told = f"nothing fits; the best miss is {missed}" if missed else reason
        reason = reason.removeprefix(told).removeprefix(": ")
    return plain(reason, 600)


def summary(report: Mapping[str, Any]) -> list[str]:
    """Say in a few sentences what the verdict rests on."""
    row, base = shown(report), baseline(report)
    if row is None:
        return ["Why each was left out stands beside it."] if report["rows"] else []
    said = []
    if row["role"] == "baseline":
        return [f"It is the {source(report)} as it came.", *_missed(row)]
    faster, smaller = row["speedup"], row["size_ratio"]["baseline"]
    gains = []
    if faster:
        gains.append(
            f"{number(faster['value'])} times as fast as the {source(report)} on this host"
        )
    if smaller:
        gains.append(f"its file is {number(smaller)} times smaller")
    if gains:
        said.append(f"It is {', and '.join(gains)}.")
    said += _scored(row, base, source(report))
    said += folded(row, base)
    said += filter(None, [worth(report)])
    said += [f"{text[0].upper()}{text[1:]}." for text in on_processors(report)]
    return [*said, *_missed(row)]


def _missed(row: Mapping[str, Any]) -> list[str]:
    """Say which limits a row does not hold for sure."""
    return [check_line(check) + "." for check in row["checks"] if check["state"] != "holds"]


def _scored(row: Mapping[str, Any], base: Mapping[str, Any] | None, whose: str) -> list[str]:
    """Say what the test rows show, with the far end of the drop where no check tells it."""
    drop, test = row["drop_points"]["test"], row["score"]["test"]
    before = base["score"]["test"] if base else None
    if not (drop and test and before):
        return []
    told = any(c["limit"] == "max_drop_points" and c["state"] == "close" for c in row["checks"])
    far = ""
    if drop.get("high") is not None and not told:
        far = f"; by these {test['rows']:,} test rows the drop could be {points(drop['high'])}"
    score, other, change = compared(test["value"], before["value"], drop["value"])
    if float(change):
        verb = "loses" if drop["value"] >= 0 else "gains"
        said = f"It scores {score} where the {whose} scores {other}: it {verb} {change} points"
    else:
        said = f"It scores {score}, the same as the {whose}"
    return [f"{said}{far}.", *_scored_own(row)]


def own(row: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return a row's score and drop on the own rows, None where there are none."""
    return row["scores"].get("own")


def own_cells(row: Mapping[str, Any]) -> tuple[str, str]:
    """Write score and drop on the own test rows."""
    shown = own(row)
    return (spread(shown["test"]), spread(shown["drop_points"]["test"])) if shown else ("–", "–")


def _scored_own(row: Mapping[str, Any]) -> list[str]:
    shown = own(row)
    drop = shown and shown["drop_points"]["test"]
    if not (shown and drop):
        return []
    change = points(abs(drop["value"]))
    verb = "loses" if drop["value"] >= 0 else "gains"
    told = f"{verb} {change} points" if float(change) else "loses nothing"
    far = f", at worst {points(drop['high'])}" if drop.get("high") is not None else ""
    return [
        f"On the {shown['test']['rows']:,} own test rows it scores "
        f"{points(shown['test']['value'])} and {told}{far}."
    ]


def folded(row: Mapping[str, Any], base: Mapping[str, Any] | None) -> list[str]:
    """Say what a smaller vocabulary is worth where it would show: rows with unseen words."""
    kept = (row["shape"] or {}).get("vocabulary")
    whole = ((base or {}).get("shape") or {}).get("vocabulary")
    text = unseen_words(row)
    if not text or not kept or not whole or kept == whole:
        return []
    return [f"Its vocabulary is {kept:,} of {whole:,} pieces. {text[0].upper()}{text[1:]}."]


def unseen_words(row: Mapping[str, Any], whose: str = "teacher") -> str:
    """Say what the test rows with words that no training row holds show of a row."""
    found = row.get("unseen_words")
    if not found or not found["rows"]:
        return ""
    said = f"of {found['rows']:,} test rows with words that no training row holds it answers "
    said += f"{points(found['accuracy'])} % rightly"
    if found["drop_points"]:
        said += f", the {whose} {points(found['baseline_accuracy'])} %"
        said += f" (drop {spread(found['drop_points'])})"
    return said


def on_processors(report: Mapping[str, Any]) -> list[str]:
    """Say what the chosen file answers as each of the target's processors; the unchecked last."""
    found = report.get("processors") or []
    told = [on_processor(each) for each in found if each["state"] != "not_checked"]
    lacks: dict[str, list[str]] = {}
    for each in found:
        if each["state"] == "not_checked":
            lacks.setdefault(plain(each["reason"]), []).append(plain(each["name"], 40))
    told += [f"not checked as {' and '.join(names)}: {why}" for why, names in lacks.items()]
    return told


def on_processor(found: Mapping[str, Any]) -> str:
    """Say what one of the target's processors answers."""
    name = plain(found["name"], 40)
    if found["cpu"] is None:
        return f"checked as {name}: {plain(found['reason'])}"
    where = f"as {name} ({plain(found['cpu'], 40)}, emulated)"
    score = f"score {points(found['score'])} there and {points(found['score_here'])} here"
    if found["state"] == "differs":
        return f"{where} it is not what it is here: {plain(found['reason'])}; {score}"
    return (
        f"{where} {points(found['agreement'])} % of {found['rows']:,} validation rows are answered "
        f"as here, {score}"
    )


def worth(report: Mapping[str, Any]) -> str:
    """Say what the teacher was worth, and plainly where it was worth nothing; "" if unknown."""
    found = report.get("teacher_worth")
    if not found:
        return ""
    gained, low, high = (found["test"][name] for name in ("value", "low", "high"))
    rows = (row_named(report, found[name]) for name in ("row", "control"))
    mine, theirs = (row and row["score"]["test"] for row in rows)
    alone, change = "the same student trained on the labels alone", points(abs(gained))
    if mine and theirs:
        score, other, change = compared(mine["value"], theirs["value"], gained)
        alone += f" scores {other}" + (f", not {score}" if change != points(abs(gained)) else "")
    elif theirs:
        alone += f" scores {points(theirs['value'])}"
    which = (
        ""
        if found["row"] == (report["chosen"] or report.get("best_miss"))
        else (f" (of {plain(found['row'], 80)})")
    )
    span = f"between {points(low)} and {points(high)}"
    if low > 0:
        return f"The teacher was worth {change} points{which}, {span}: {alone}."
    less = "more" if gained <= 0 else "less"
    by = f"{alone}, " + (f"{change} points {less}" if float(change) else "the same")
    if high < 0:
        return f"Distillation did not help{which}: {by}; its gain lies {span}."
    return (
        f"Distillation did not measurably help{which}: {by}; by these {found['rows']:,} test rows "
        f"its gain lies {span}."
    )


def limit_name(limit: str) -> tuple[str, str]:
    """Return what a limit is about, in words, and its unit."""
    return LIMITS.get(limit, (limit.replace("_", " "), ""))


def check_line(check: Mapping[str, Any]) -> str:
    """Write one check as a sentence without its full stop."""
    about, unit = limit_name(check["limit"])
    value = f"{against(check['value'], check['allowed'], unit)} {unit}".strip()
    value = "no figure" if check["value"] is None else value
    text = f"{about[0].upper()}{about[1:]}: {value}, allowed {bound(check)}"
    text += f": {STATES[check['state']]}"
    return text + (f" ({plain(check['reason'])})" if check["reason"] else "")


def chosen_mark(report: Mapping[str, Any]) -> str:
    """Return what stands beside the chosen row: "chosen, fits closely"."""
    return f"chosen, {VERDICTS[report['verdict']]}"


def splits(report: Mapping[str, Any]) -> str:
    """Return the splits in one line, with where they come from."""
    parts = []
    for name, split in report["data"]["splits"].items():
        parts.append(
            f"{split['rows']:,} {name.replace('_', ' ')}"
            + (" (ours)" if split["origin"] == "cut" else "")
        )
    made = [f"{count:,} {kind}" for kind, count in (report["data"].get("made") or {}).items()]
    told = f"; made for the teacher to label: {', '.join(made)}" if made else ""
    return plain(", ".join(parts) + told) or "–"


def versions(report: Mapping[str, Any]) -> str:
    """Name what it was made with, each once."""
    made = {"edgedistill": report["edgedistill"], **report["environment"]["versions"]}
    return plain(", ".join(f"{name} {version}" for name, version in made.items()), 600)


def warnings(report: Mapping[str, Any]) -> list[str]:
    """Return the warnings of the data and of the build, each once."""
    return list(dict.fromkeys(map(str, [*report["data"]["warnings"], *report["warnings"]])))


def teachers(report: Mapping[str, Any]) -> str:
    """Return several teachers in one line, with their weights and scores; "" where there is one."""
    found = report.get("teachers") or ()
    told = [
        f"{one['name']} (weight {one['weight']:g}, {spread(one['validation'])} on validation)"
        for one in found
    ]
    return plain(f"the average of the logits of {', '.join(told)}", 600) if len(found) > 1 else ""


def metric(report: Mapping[str, Any]) -> str:
    """Name the metric, with the reason for it where there is one."""
    row, why = shown(report) or baseline(report), report["data"].get("metric_reason")
    name = (row["score"]["metric"] if row else None) or "–"
    return plain(f"{name}: {why}" if why else name)


def instructions(where: Mapping[str, Any]) -> str:
    """Name the instruction set that int8 uses here, and those flags that arithmetic can use."""
    flags = [str(flag) for flag in where["flags"] or () if str(flag).startswith(FAST)]
    return " · ".join(filter(None, (where.get("instructions"), " ".join(flags))))


def yardstick(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the rates from which an estimate starts: this host's, and the target's device's."""
    target = report["target"]
    places = (
        ("yardstick here", report["environment"].get("yardstick")),
        (f"yardstick of {plain(target.get('name') or 'the device', 40)}", target.get("device")),
    )
    made = []
    for place, rates in places:
        if isinstance(rates, Mapping):
            told = [
                f"{name} {number(rates[key])} {unit}"
                for key, name, unit in RATES
                if isinstance(rates.get(key), (int, float))
            ]
            made.append((place, ", ".join(told).rstrip()))
    return [(place, text) for place, text in made if text]


def calibration(report: Mapping[str, Any]) -> str:
    """Say how far probabilities are right, and by which temperature; "" where it is not known."""
    row, base = shown(report), baseline(report)
    sure, theirs = (one and one["confidence"] for one in (row, base))
    if not sure:
        return ""
    beside = f", the {source(report)}'s {points(theirs['ece'])}" if theirs else ""
    fitted = f"; temperature {number(sure['temperature'])}, fitted on validation"
    return f"Calibration error {points(sure['ece'])} points{beside}{fitted}."


def used_by(names: Sequence[str]) -> str:
    """Say which rows a step serves."""
    if len(names) > 3:
        return f"{len(names)} rows"
    return ", ".join(plain(name) for name in names)
