"""The report of an evaluation: one self-contained HTML file, its plots as files, and a table for the terminal.

    page = write_report(results, out, images=ReportImages(real=[(film, "00012.png")]))
    print(terminal_table(results))

`results` is the content of `results.json`. Every key may be absent: a section without data is left out. Other commands
write pages of their own with `blocks.write_page`.
"""

from __future__ import annotations

from synthchex.report.films import Neighbours, Ranked, ReportImages, spread_rows
from synthchex.report.page import write_report
from synthchex.report.terminal import terminal_table

__all__ = ["Neighbours", "Ranked", "ReportImages", "spread_rows", "terminal_table", "write_report"]
