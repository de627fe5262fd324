# SPDX-License-Identifier: Apache-2.0
"""What a soak reports: JSON for programs, Markdown for people, and the table of docs/reliability.md."""

import datetime
import json
import os
import platform
import subprocess

# Figure -> what it is called in tables; those with None are in the JSON only.
FIGURES = {
    "rounds": "rounds of everything",
    "torture_rounds": "rounds of torture, each on a fresh mount",
    "operations": "operations of torture, each checked against the model",
    "bytes_read": "bytes read and compared by torture",
    "bytes_written": "bytes written by torture",
    "pages_read_beside_changes": "pages read beside a change of them",
    "pages_outrun": None,
    "fio_runs": "mixes of fio",
    "fio_operations": "reads and writes of fio",
    "fio_bytes_read": "bytes read and verified by fio",
    "fio_bytes_written": "bytes written by fio",
    "bystander_reads": "reads of shared pages beside the writers, compared",
    "audits": "audits of live mounts",
    "scans": "scans of the standing mount's source",
    "kills": "daemons killed while files were written",
    "takeovers": "processes that served, killed beside fio: another one took over",
    "acknowledged_writes": "acknowledged writes looked for after a kill",
    "breaks": "breaks",
    "merges": "merges",
    "adopted": "pages adopted from a clone that was read before",
    "evictions": "evictions",
    "fills_discarded": "stale fills caught",
    "digest_collisions": "equal digests of different bytes",
    "hits": "pages answered from the pool",
    "misses": "pages read from the source for a reader",
    "readahead": None,
    "bypassed": "pages handed on without a frame",
}
BYTES = {"bytes_read", "bytes_written", "fio_bytes_read", "fio_bytes_written"}
UNITS = ((1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))


def bytes_text(value):
    for size, name in UNITS:
        if value >= size:
            return "%.1f %s" % (value / size, name)
    return "%d B" % value


def figure_text(name, value):
    return bytes_text(value) if name in BYTES else format(value, ",").replace(",", " ")


def row(*cells):
    return "| " + " | ".join(cells) + " |"


def first_line(command, **kwargs):
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, timeout=20,
                              check=False, **kwargs)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return (done.stdout.strip().splitlines() or [""])[0]


def about(foldctl):
    """What was run, and on what; no names of this machine."""
    top = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGESIZE")
    return {
        "foldfs": first_line(foldctl + ["--version"]).removeprefix("foldctl "),
        "revision": first_line(["git", "describe", "--always", "--dirty"], cwd=top) or "unknown",
        "machine": "%s, %d processors, %.0f GiB" % (platform.machine(), os.cpu_count(), memory / (1 << 30)),
        "kernel": platform.release(),
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d"),
    }


def duration_text(seconds):
    return "%.1f h" % (seconds / 3600) if seconds >= 3600 else "%.0f min" % (seconds / 60)


def memory_rows(document):
    """First and last of the life of a daemon that was watched longest; the highest of all."""
    lives = [life for life in document["lives"] if life["first"]]
    if not lives:
        return []
    longest = max(lives, key=lambda life: life["samples"])
    rows = []
    for name, text in (("resident_bytes", "memory of the daemon"), ("counted_bytes", "the same, as foldfs counts it"),
                       ("window_bytes", "the window")):
        rows.append((text + ": first, last, highest of all", "%s, %s, %s" % (
            bytes_text(longest["first"][name]), bytes_text(longest["last"][name]),
            bytes_text(max(life["peak"][name] for life in lives)))))
    return rows


def cells(document):
    """(what, value) for each row of a table."""
    outcome = {"clean": "clean", "failed": "**failed**"}.get(document["outcome"], document["outcome"])
    rows = [("outcome", outcome), ("time", duration_text(document["seconds"])),
            ("transport", document["transport"]), ("seed", str(document["seed"]))]
    rows += [(text, figure_text(name, document["figures"].get(name, 0))) for name, text in FIGURES.items() if text]
    rows += memory_rows(document)
    rows.append(("revision", "%s, %s" % (document["about"]["revision"], document["about"]["date"])))
    return rows


def table(documents):
    """One column for each document."""
    if not documents:
        return "There are no result files yet."
    columns = [cells(document) for document in documents]
    names = []
    for column in columns:
        names += [name for name, _ in column if name not in names]
    lines = [row("", *(document["preset"] for document in documents)), row("---", *["---:"] * len(documents))]
    for name in names:
        lines.append(row(name, *(dict(column).get(name, "–") for column in columns)))
    machines = sorted({"%(machine)s, Linux %(kernel)s" % document["about"] for document in documents})
    return "\n".join(lines + ["", "; ".join(machines) + "."])


def markdown(document):
    text = "# Soak of foldfs %s, %s\n\n%s\n" % (
        document["about"]["foldfs"], document["preset"], table([document]))
    failure = document["failure"]
    if failure:
        text += "\nFailed in round %d, %s:\n\n```\n%s\n```\n\nThe same choices again: `%s`\n" % (
            failure["round"], failure["phase"], failure["text"], failure["again"])
    return text


def load(path):
    with open(path, encoding="utf-8") as file:
        return json.load(file)


def into(text, name, new):
    """TEXT with NEW between the marks of that NAME."""
    marks = ["<!-- %s:%s -->" % (name, end) for end in ("begin", "end")]
    begin, end = map(text.find, marks)
    if begin < 0 or end < begin:
        raise ValueError("no %s … %s" % tuple(marks))
    return "%s\n%s\n%s" % (text[:begin + len(marks[0])], new, text[end:])
