"""The report as one page, made from report.json alone: no JavaScript, no network, below 300 KB."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgedistill.report import words
from edgedistill.report.cells import kind, more, safe, user, whole
from edgedistill.report.details import details
from edgedistill.report.plot import legend, plot
from edgedistill.report.words import against, number, points, spread

CSS = Path(__file__).with_name("page.css")
SIGNS = {"fits": "✓", "fits_closely": "≈", "misses": "✕"}
MARKS = {"holds": "✓", "close": "≈", "misses": "✕", "unchecked": "?"}
MOST_ROWS = 60
OWN_HEADS = ["own test", "own drop"]
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def html(report: Mapping[str, Any]) -> str:
    """Return the whole report as one HTML page; every text in it is escaped."""
    title = safe(words.headline(report))
    parts = [
        _verdict(report),
        _rows(report),
        _plot(report),
        _checks(report),
        *details(report),
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{title}</title>\n<style>\n{CSS.read_text(encoding='utf-8')}</style>\n</head>\n"
        "<body>\n<main>\n" + "\n".join(filter(None, parts)) + "\n</main>\n</body>\n</html>\n"
    )


# ---------------------------------------------------------------- the verdict


def _verdict(report: Mapping[str, Any]) -> str:
    target = report["target"]
    name = safe(target.get("name") or "", 40)
    over = f"edgedistill report · {name} · {safe(report['created'][:10])}"
    tone = report["verdict"]
    said = "".join(f"<p>{safe(line, 600)}</p>" for line in words.summary(report))
    return (
        f'<header>\n<p class="over">{over}</p>\n'
        f'<h1><span class="{tone}" aria-hidden="true">{SIGNS[tone]}</span> '
        f"{safe(words.headline(report))}</h1>\n{said}{_facts(report)}\n</header>"
    )


def _facts(report: Mapping[str, Any]) -> str:
    row = words.shown(report)
    if row is None:
        return ""
    facts, given = [], words.source(report) != "teacher"
    if row["speedup"]:
        facts.append(
            (f"faster than the {words.source(report)}", f"{number(row['speedup']['value'])} ×")
        )
    for key, about in (
        ("baseline", "smaller than its file"),
        (
            "source_model",
            "smaller than the file as given" if given else "smaller than the checkpoint",
        ),
    ):
        if row["size_ratio"][key]:
            facts.append((about, f"{number(row['size_ratio'][key])} ×"))
    if row["drop_points"]["test"]:
        facts.append(("points lost", spread(row["drop_points"]["test"])))
    if row["agreement"] is not None:
        facts.append(("same answer", f"{points(row['agreement'])} %"))
    inner = "".join(f"<div><dt>{about}</dt><dd>{value}</dd></div>" for about, value in facts)
    return f'<dl class="facts">{inner}</dl>' if facts else ""


# ---------------------------------------------------------------- the rows


def _rows(report: Mapping[str, Any]) -> str:
    if not report["rows"]:
        return ""
    estimate = words.estimated(report)
    target = safe(report["target"].get("name") or "device", 30)
    heads = [
        "test score",
        "drop",
        "speed-up",
        "p90 here, ms",
        f"p90 {target}{'*' if estimate else ''}, ms",
        "memory, MB",
        "size, MB",
    ]
    if any(map(words.own, report["rows"])):
        heads[2:2] = OWN_HEADS
    body = "".join(_row(report, row, heads) for row in report["rows"][:MOST_ROWS])
    notes = []
    if estimate:
        notes.append("* estimated from this host by the yardstick; a device measures it.")
    if any(row["latency_ms"] and not row["latency_ms"]["steady"] for row in report["rows"]):
        notes.append("~ unsteady: something else ran on this host.")
    if any(row["score"]["test"] for row in report["rows"]):
        notes.append(
            "Scores and drops are in points, with 95 % intervals, on rows no stage trained on."
        )
    if any(row["latency_ms"] for row in report["rows"]):
        notes.append("Latencies are of one run, all rows in turn, the model alone.")
    if report.get("can_show"):
        notes.append(f"{report['can_show']}.")
    head = "".join(f'<th scope="col">{text}</th>' for text in ["model", *heads])
    return (
        f'<section>\n<h2>Side by side</h2>\n<table class="stack"><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table>\n{more(MOST_ROWS, len(report['rows']))}"
        f'<p class="small" style="margin-top:.8rem">{safe(" ".join(notes), 900)}</p>\n</section>'
    )


def _row(report: Mapping[str, Any], row: Mapping[str, Any], heads: Sequence[str]) -> str:
    steady = row["latency_ms"] is None or row["latency_ms"]["steady"]
    speedup = row["speedup"] and row["role"] != "baseline"
    values = [
        spread(row["score"]["test"]),
        spread(row["drop_points"]["test"]),
        *(words.own_cells(row) if OWN_HEADS[0] in heads else ()),
        f"{number(row['speedup']['value'])} ×" if speedup else "–",
        ("" if steady else "~") + number(words.p90(row)),
        number(words.device_p90(row)),
        number(row["memory_mb"]),
        number(row["size_mb"]),
    ]
    cells = "".join(
        f'<td data-label="{head}"{kind(value, False)}>{value}</td>'
        for head, value in zip(heads, values, strict=True)
    )
    main = row["name"] in (report["chosen"], report.get("best_miss"))
    tags = {report["safer"]: "safer", report.get("best_miss"): "the best miss"}
    tag = words.chosen_mark(report) if row["name"] == report["chosen"] else tags.get(row["name"])
    if row["state"] in ("dropped", "skipped", "failed", "kept"):
        tag = tag or row["state"]
    name = user(row["name"]) + (f' <span class="tag">· {safe(tag)}</span>' if tag else "")
    why = f'<span class="why">{whole(row["reason"], 300)}</span>' if row["reason"] else ""
    mark = ' class="chosen"' if main else ""
    return f'<tr{mark}><th scope="row">{name}{why}</th>{cells}</tr>\n'


def _plot(report: Mapping[str, Any]) -> str:
    wide = plot(report)
    if not wide:
        return ""
    wide = wide.replace('class="plot"', 'class="plot wide"', 1)
    narrow = plot(report, width=360, height=340)
    narrow = narrow.replace('class="plot"', 'class="plot narrow"', 1)
    keys = "".join(f"<li>{mark}{safe(text)}</li>" for mark, text in legend(report))
    return (
        f"<section>\n<h2>Score against latency</h2>\n<figure>{wide}{narrow}"
        f'<ul class="keys small">{keys}</ul></figure>\n'
        '<p class="small">Up and to the left is better. Dashed: the limits; shaded: inside them. '
        "Whiskers: 95 % intervals, of an estimate widened by its uncertainty.</p>\n</section>"
    )


# ---------------------------------------------------------------- limits and labels


def _checks(report: Mapping[str, Any]) -> str:
    row = words.shown(report)
    if row is None or not row["checks"]:
        return ""
    cards = "".join(_card(check) for check in row["checks"])
    target = safe(report["target"].get("name") or "the target")
    return (
        f"<section>\n<h2>The limits of {target}, held against {user(row['name'])}</h2>\n"
        f'<ul class="cards">{cards}</ul>\n</section>'
    )


def _card(check: Mapping[str, Any]) -> str:
    about, unit = words.limit_name(check["limit"])
    state, allowed = check["state"], check["allowed"]
    value = "no figure"
    if check["value"] is not None:
        value = f"{against(check['value'], allowed, unit)} {unit}"
    bound = words.bound(check)
    if check["low"] is not None and check["high"] is not None:
        low, high = (against(check[end], allowed, unit) for end in ("low", "high"))
        bound += f" ({low} to {high})"
    reason = f'<span class="small">{user(check["reason"], 300)}</span>' if check["reason"] else ""
    return (
        f'<li><span class="small">{safe(about)}</span><b>{safe(value)}</b>'
        f"{_bar(check)}"
        f'<span class="small">{safe(bound)}</span>'
        f'<span class="badge {state}">{MARKS[state]} {words.STATES[state]}</span>{reason}</li>'
    )


def _bar(check: Mapping[str, Any]) -> str:
    """Draw the figure as a bar; the limit is the tick at two thirds."""
    if check["value"] is None or check["allowed"] <= 0 or check["limit"].startswith("min_"):
        return ""
    part = min(max(check["value"] / check["allowed"] * 100, 0.0), 150.0)
    return (
        f'<svg class="bar {check["state"]}" viewBox="0 0 150 8" preserveAspectRatio="none" '
        'aria-hidden="true"><rect class="all" y="2" width="150" height="4"/>'
        f'<rect class="part" y="2" width="{part:.1f}" height="4"/>'
        '<rect class="edge" x="99.3" width="1.4" height="8"/></svg>'
    )
