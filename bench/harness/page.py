# SPDX-License-Identifier: Apache-2.0
"""The report: one HTML file with plots and tables out of a result file, which needs nothing else to be read."""

import html
import os

from . import report

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1d1d1d; max-width: 1080px; margin: 2em auto; padding: 0 1em; }
h1 { font-size: 1.6em; } h2 { font-size: 1.25em; margin-top: 2em; } h3 { font-size: 1.05em; margin-bottom: 0.2em; }
table { border-collapse: collapse; font-size: 13px; }
.wide { overflow-x: auto; }
th, td { text-align: left; padding: 3px 9px; border-bottom: 1px solid #ddd; vertical-align: top; }
th { border-bottom: 2px solid #999; }
td.met { color: #0b6e4f; } td.lost { color: #b5443a; font-weight: 600; }
figure { margin: 1em 0 2em; } figcaption { color: #555; font-size: 13px; }
svg { max-width: 100%; height: auto; }
"""


def _cell(text):
    if text.startswith("**not met**"):
        return f'<td class="lost">{html.escape(text.replace("**", ""))}</td>'
    return f'<td class="met">{text}</td>' if text == "met" else f"<td>{html.escape(text)}</td>"


def _table(rows):
    """ROWS as report.row() makes them: a head, a line of dashes, the rest."""
    cells = [report.cells_of(row) for row in rows]
    head = "".join(f"<th>{html.escape(text)}</th>" for text in cells[0])
    body = "\n".join(f"<tr>{''.join(_cell(text) for text in row)}</tr>" for row in cells[2:])
    return f'<div class="wide"><table>\n<tr>{head}</tr>\n{body}\n</table></div>'


def _figures(document):
    from . import plots  # needs matplotlib
    parts = []
    for title, caption, svg in plots.all_of(document["results"]):
        parts.append(f"<h3>{html.escape(title)}</h3>\n<figure>\n{svg}\n<figcaption>{html.escape(caption)}</figcaption>\n"
                     "</figure>")
    return "\n".join(parts)


def _counts(document):
    """What the first look is for: how many limits are kept."""
    judged = [result for result in document["results"] if result["met"] is not None]
    met = sum(1 for result in judged if result["met"])
    return f"{met} of {len(judged)} limits are kept, {len(judged) - met} are not."


def text(document):
    """The whole page."""
    about = "\n".join(f"<p>{html.escape(line)}</p>" for line in report.about(document))
    peers = f"<h2>Peers</h2>\n{_table(report.peer_rows(document))}" if document.get("peers") else ""
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>foldfs: benchmarks</title>
<style>{STYLE}</style>
</head>
<body>
<h1>foldfs: benchmarks</h1>
<p>{_counts(document)}</p>
{about}
<h2>Limits</h2>
<p>One row for each limit: the median over its cases, the worst of them, and whether all keep it.</p>
{_table(report.summary_rows(document))}
<h2>Plots</h2>
{_figures(document)}
{peers}
<h2>Every case</h2>
{_table(report.table_rows(document))}
</body>
</html>
"""


def write(document, path):
    with open(path + ".new", "w", encoding="utf-8") as file:
        file.write(text(document))
    os.rename(path + ".new", path)
