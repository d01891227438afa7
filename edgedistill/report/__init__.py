"""The report: one record, and its faces for a terminal, for markdown and for a browser.

make(build, rows, choice=, verdict=, steps=) -> dict     report.json, as the contract has it
write(folder, report)                                    report.json, report.md, report.html
table(report, width=, color=) -> str                     what a terminal shows
markdown(report) -> str, html(report) -> str             made from report.json alone
"""

from __future__ import annotations

from edgedistill.report.html import html
from edgedistill.report.markdown import markdown
from edgedistill.report.record import Build, Row, Worth, make, schema, write
from edgedistill.report.text import table

__all__ = ["Build", "Row", "Worth", "html", "make", "markdown", "schema", "table", "write"]
