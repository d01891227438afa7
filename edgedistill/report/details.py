"""The second half of the page: what was done and why, labels, probabilities, where, how again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgedistill.report import figures, jobfile, words
from edgedistill.report.cells import more, safe, table, user, whole
from edgedistill.report.words import number, points, span

MOST_STEPS, MOST_NOTES, MOST_LINES = 120, 40, 120
MOST_COMMAND, MOST_KEPT = 8000, 36  # letters; a longer argument may break inside on a phone


def details(report: Mapping[str, Any]) -> list[str]:
    """Return the sections in their order; an empty text where there is nothing to say."""
    return [
        _done(report),
        _labels(report),
        _confidence(report),
        _more_figures(report),
        _place(report),
        _again(report),
    ]


def _labels(report: Mapping[str, Any]) -> str:
    row = words.shown(report)
    if row is None or row["worst_labels"] is None:
        return ""
    head = "<section>\n<h2>Labels that lost most</h2>\n"
    if not row["worst_labels"]:
        whose = words.source(report)
        return head + f"<p>No label is found less often than by the {whose}.</p>\n</section>"
    cells = [
        [
            user(one["label"]),
            f"{one['rows']:,}",
            points(one["recall"]),
            points(one["baseline_recall"]),
        ]
        for one in row["worst_labels"][:20]
    ]
    heads = ["label", "test rows", "found, %", f"by the {words.source(report)}, %"]
    return head + table(heads, cells) + "\n</section>"


def _confidence(report: Mapping[str, Any]) -> str:
    row, base = words.shown(report), words.baseline(report)
    sure = row and row["confidence"]
    if not row or not sure:
        return ""
    theirs = (base or {}).get("confidence")
    before = {one["threshold"]: one for one in theirs["at"]} if theirs else {}
    cells = []
    for one in sure["at"]:
        other = before.get(one["threshold"], {"coverage": None, "accuracy": None})
        cells.append(
            [
                f"at least {number(one['threshold'], 1)}",
                points(one["coverage"]),
                points(one["accuracy"]),
                points(other["coverage"]),
                points(other["accuracy"]),
            ]
        )
    heads = [
        "probability",
        "answers kept, %",
        "of these right, %",
        f"{words.source(report)} keeps, %",
        f"{words.source(report)} right, %",
    ]
    said = safe(words.calibration(report))
    return (
        f"<section>\n<h2>What a probability is worth</h2>\n<p>{said}</p>\n"
        f"{table(heads, cells)}\n</section>"
    )


def _done(report: Mapping[str, Any]) -> str:
    steps = report["steps"]
    why = words.why(report)
    said = f"<p>{whole(_sentence(why), 600)}</p>\n" if why else ""
    safer = words.row_named(report, report["safer"])
    if safer and report["safer"] != report["chosen"]:
        said += (
            f"<p>The best-scoring model that holds every limit on validation is "
            f"{user(safer['name'])}.</p>\n"
        )
    cells = [
        [
            safe(step["stage"]),
            user(step.get("about") or "", 300),
            safe(words.used_by(step.get("rows") or [])),
            span(step["seconds"]) + (", from the store" if step["cached"] else ""),
        ]
        for step in steps[:MOST_STEPS]
    ]
    heads = ["step", "what it did", "for", "time"]
    listed = table(heads, cells, text=2, layout="wide steps") if steps else ""
    total = report["seconds"].get("total")
    end = f'<p class="small">In all {span(total)}.</p>' if total is not None else ""
    return (
        f"<section>\n<h2>What was done, and why</h2>\n{said}{listed}\n"
        f"{more(MOST_STEPS, len(steps))}{end}\n</section>"
    )


def _more_figures(report: Mapping[str, Any]) -> str:
    row = words.shown(report)
    if row is None:
        return ""
    pairs = [(name, text) for name, text in figures.beyond(row, words.source(report)) if text]
    inner = "".join(f"<dt>{safe(name)}</dt><dd>{safe(text, 400)}</dd>" for name, text in pairs)
    head = f"<section>\n<h2>More of {user(row['name'])}</h2>\n"
    return f'{head}<dl class="pairs">{inner}</dl>\n</section>' if pairs else ""


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:].rstrip(".") + "."


def _place(report: Mapping[str, Any]) -> str:
    where, source = report["environment"], report["source_model"]
    pairs = [
        (
            "processor",
            f"{user(where['processor'] or 'unknown')}, {safe(where['cores'] or '?')} cores",
        ),
        ("instructions", safe(words.instructions(where))),
        *((safe(place), safe(rates)) for place, rates in words.yardstick(report)),
        ("versions", safe(words.versions(report), 600)),
        (
            words.source(report),
            f"{user(source['name'] or '–')}, {number(source['size_mb'])} MB as given, "
            f"<code>{safe(str(source['hash'] or '–')[:12])}</code>",
        ),
        *([("teachers", safe(words.teachers(report), 600))] if words.teachers(report) else []),
        ("rows", safe(words.splits(report), 600)),
        ("metric", safe(words.metric(report))),
        ("target", safe(report["target"].get("about") or report["target"].get("name") or "–")),
    ]
    inner = "".join(f"<dt>{name}</dt><dd>{value or '–'}</dd>" for name, value in pairs)
    notes = words.warnings(report)
    listed = "".join(f"<li>{whole(text, 300)}</li>" for text in notes[:MOST_NOTES])
    warned = f'<h2>Warnings</h2>\n<ul class="notes">{listed}</ul>' if notes else ""
    return (
        f'<section>\n<h2>Where it was measured</h2>\n<dl class="pairs">{inner}</dl>\n{warned}'
        f"{more(MOST_NOTES, len(notes))}\n</section>"
    )


def _again(report: Mapping[str, Any]) -> str:
    lines = jobfile.job_file(report["job"])
    text = "\n".join(safe(line, 200) for line in lines[:MOST_LINES])
    target = safe(report["target"].get("name") or "phone")
    command = report.get("command") or f"edgedistill build job.toml --target {target}"
    return (
        f"<section>\n<h2>How to repeat it</h2>\n<pre>{_wrapping(command)}</pre>\n"
        f'<p class="small">The same as a job file, everything inferred filled in '
        f"(<code>edgedistill build job.toml</code>):</p>\n<pre>{text}</pre>\n"
        f"{more(MOST_LINES, len(lines))}</section>"
    )


def _wrapping(command: str) -> str:
    """Write a command as one line that wraps between its arguments; one click selects it whole."""
    kept = (
        f'<span class="kept">{safe(each)}</span>' if len(each) <= MOST_KEPT else safe(each, 1000)
        for each in jobfile.arguments(words.plain(command, MOST_COMMAND))
    )
    return f'<code class="command">{" ".join(kept)}</code>'
