# SPDX-License-Identifier: Apache-2.0
"""Compares two outputs of the probe, and judges the differences by the table of docs/posix.md."""

import fnmatch
import os
import re

DOCUMENT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "docs", "posix.md")


class Row:
    """Lines that may differ: their labels, the mount's answer, why."""

    def __init__(self, mark, lines, answer, reason):
        self.depends = mark == "*"
        self.lines = lines.strip("`")
        self.answer = answer.strip("`")
        self.reason = reason
        self.used = 0

    def covers(self, label, answer):
        return fnmatch.fnmatchcase(label, self.lines) and fnmatch.fnmatchcase(answer, self.answer)


def documented(path=DOCUMENT):
    rows = []
    with open(path, encoding="utf-8") as document:
        for line in document:
            cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
            if len(cells) == 4 and cells[1].startswith("`"):
                rows.append(Row(*cells))
    if not rows:
        raise ValueError("no table in " + path)
    return rows


def parse(text):
    """Label -> answer. A label that comes twice would hide a line."""
    found = {}
    for line in text.splitlines():
        label, colon, answer = line.partition(": ")
        if not colon or not re.match(r"[a-z-]+\.", label):
            raise ValueError("not a line of the probe: %r" % line)
        if label in found:
            raise ValueError("twice: " + label)
        found[label] = answer
    return found


def compare(native, mounted, rows):
    """The differences that no row covers, as text; marks the rows that cover one."""
    unexpected = []
    for label in list(native) + [label for label in mounted if label not in native]:
        expected, answer = native.get(label, "(no line)"), mounted.get(label, "(no line)")
        if answer == expected:
            continue
        covering = [row for row in rows if row.covers(label, answer)]
        for row in covering:
            row.used += 1
        if not covering:
            unexpected.append("%s: %s; natively %s" % (label, answer, expected))
    return unexpected
