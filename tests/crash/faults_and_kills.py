# SPDX-License-Identifier: Apache-2.0
"""What tests/crash/run did: JSON for programs, and the tables of "Longer runs" of docs/reliability.md."""

import json
import os
import re
import subprocess
import tempfile
import time

import summary


# ---- running, and keeping what was done ---------------------------------------------------------

def shown(command, environment):
    """Run COMMAND, its output shown as it comes; (status, output)."""
    text = []
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            print(line, end="", flush=True)
            text.append(line)
    return process.returncode, "".join(text)


def number_of(pattern, text):
    found = re.search(pattern, text, re.MULTILINE)
    return int(found.group(1)) if found else 0


def called(arguments):
    """The command line, but for where files are."""
    words = ["tests/crash/run"]
    if arguments.rounds:
        words.append("--rounds %d" % arguments.rounds)
    if arguments.sweep:
        words.append("--sweep")
        if arguments.stride != 1:
            words.append("--stride %d" % arguments.stride)
    return " ".join(words)


def run(command, arguments):
    """Run the tests and write arguments.output; their status."""
    started = time.monotonic()
    about = summary.about([os.path.join(arguments.build, "foldctl")])
    with tempfile.NamedTemporaryFile("r", encoding="utf-8") as results:
        status, text = shown(command, dict(os.environ, FOLDFS_CRASH_RESULTS=results.name))
        rows = [json.loads(line) for line in results]
    document = {
        "command": called(arguments),
        "about": about,
        "preset": arguments.preset,
        "seed": number_of(r"^foldfs of .* seed (\d+)$", text),
        "seconds": round(time.monotonic() - started),
        "outcome": "failed" if status else "clean",
        "tests": {what: number_of(r"\b(\d+) %s\b" % what, text.strip().splitlines()[-1])
                  for what in ("passed", "failed", "skipped")},
        "rows": sorted(rows, key=lambda row: row["test"]),
    }
    with open(arguments.output, "w", encoding="utf-8") as file:
        json.dump(document, file, indent=1)
        file.write("\n")
    return status


# ---- telling ------------------------------------------------------------------------------------

def counted(value):
    return format(value, ",").replace(",", " ")


def added_up(rows, what):
    """The figures that the ROWS have under WHAT, by name; in the order of their first appearance."""
    total = {}
    for row in rows:
        for name, value in row.get(what, {}).items():
            total[name] = total.get(name, 0) + value
    return total


def result_of(document):
    outcome = "%(passed)d passed, %(failed)d failed" % document["tests"]
    if document["tests"]["skipped"]:
        outcome += ", %(skipped)d skipped" % document["tests"]
    words = [outcome, summary.duration_text(document["seconds"])]
    faults = sum(added_up(document["rows"], "faults").values())
    if faults:
        words.append("%s faults" % counted(faults))
    rounds = sum(row.get("rounds", 0) for row in document["rows"])
    if rounds:
        words.append("%s kills; changes acknowledged, none of which the source lacks: %s" % (counted(rounds), ", ".join(
            "%s %s" % (counted(count), kind)
            for kind, count in added_up(document["rows"], "acknowledged").items())))
    return ", ".join(words)


def runs_table(documents):
    lines = [summary.row("command", "revision, build", "result"), summary.row("---", "---", "---")]
    for document in documents:
        lines.append(summary.row("`%s`" % document["command"], "%s, %s, %s" % (
            document["about"]["revision"], document["about"]["date"], document["preset"]), result_of(document)))
    return lines


def faults_table(rows):
    """One line for each test, whatever its transport; one column for each kind of fault."""
    kinds = list(added_up(rows, "faults"))
    names = sorted({row["test"].partition("[")[0] for row in rows})
    lines = [summary.row("faults that applied", *kinds), summary.row("---", *["---:"] * len(kinds))]
    for name in names:
        total = added_up([row for row in rows if row["test"].partition("[")[0] == name], "faults")
        lines.append(summary.row("`%s`" % name, *(counted(total[kind]) if kind in total else "–" for kind in kinds)))
    return lines


def table(documents):
    if not documents:
        return "There are no result files yet."
    lines = runs_table(documents)
    for document in documents:
        rows = [row for row in document["rows"] if "faults" in row]
        if rows:
            transports = " and ".join(sorted({row["transport"] for row in rows}))
            lines += ["", "Of `%s`, %s together:" % (document["command"], transports), ""] + faults_table(rows)
    machines = sorted({"%(machine)s, Linux %(kernel)s" % document["about"] for document in documents})
    return "\n".join(lines + ["", "; ".join(machines) + "."])
