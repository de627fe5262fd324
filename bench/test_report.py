#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Tests of what bench/report makes of a result file: tables, README, and the page with its plots.

Prints its counts as the unit tests do. The page needs matplotlib, which a build does not: without it that
test is skipped.
"""

import copy
import html.parser
import importlib.util
import json
import os
import sys
import traceback

from harness import groups, report
from harness.results import Results

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
KEPT = os.path.join(TOP, "docs", "results", "2026-11-30.json")

LATENCY = {"p50": 1.0, "p90": 2.0, "p99": 3.0, "p999": 4.0, "max": 5.0}


class Skip(Exception):
    """It cannot be run here."""


def made():
    """A result file with one of everything that scenarios write."""
    about = {"format": 1, "date": "2026-01-01", "quick": True, "rounds": 2, "machine": "a <machine>", "kernel": "6.18",
             "versions": {"foldfs": "foldfs 1", "revision": "abc", "libfuse": "3.18.3"}, "notes": ["it rained"]}
    results = Results(about, lambda result: report.line(result))
    both = {"latency_us": LATENCY, "peer_latency_us": LATENCY}
    results.ratio("hot", "4 KiB random, 1 reader", "dev", "ops_per_s", [90.0, 99.0], "native", [100.0, 100.0], 0.97, both)
    results.ratio("hot", "1 MiB sequential", "dev", "bytes_per_s", [2e9, 2e9], "native", [1e9, 1e9], 0.97)
    results.ratio("pool", "4 KiB random", "dev", "ops_per_s", [2.0], "null_fuse", [1.0], 0.96)
    results.ratio("pool", "4 KiB random", "dev", "ops_per_s", [2.0], "bindfs", [1.0])
    results.amount("footprint", "2 images, memory of the whole system", "dev", "bytes", [5 << 20], 6 << 20,
                   {"images": 2, "unique_bytes": 4 << 20})
    results.reference("footprint", "2 images, memory of the whole system", "overlayfs", None, "bytes", [9 << 20],
                      {"images": 2})
    results.amount("mixed", "p99 of hits while misses run ÷ without", "dev", "ratio", [2.0], 1.5,
                   {"latency_us": LATENCY, "alone_latency_us": LATENCY})
    results.amount("sharing", "50 % equal pages, memory of the whole system", "dev", "bytes", [3 << 20], 4 << 20,
                   {"percent": 50, "unique_bytes": 2 << 20})
    results.ratio("sharing", "50 % equal pages, first read", "dev", "bytes_per_s", [1.0], "native", [2.0], None,
                  {"percent": 50})
    results.amount("scale", "metadata and index for each of 10^6 frames", None, "bytes", [75.0], 80,
                   {"count": 10**6, "what": "index"})
    results.failure("storm", "16 clones", "dev", "no | memory\nat all")
    peers = [{"name": "bindfs", "what": "FUSE", "version": "1", "used": True, "reason": None},
             {"name": "erofs", "what": "images", "version": "", "used": False, "reason": "this kernel has no erofs"},
             {"name": "zfs-fuse", "what": "ZFS", "version": "", "used": False, "reason": report.NOT_ASKED}]
    return json.loads(json.dumps(results.document(peers, {"hot": 3})))


def kept():
    with open(KEPT, encoding="utf-8") as file:
        return json.load(file)


def expect(condition, what):
    if not condition:
        raise AssertionError(what)


def verdicts_follow_the_limits():
    """Either sense, at the limit and beside it, and none without one."""
    met = {(result["scenario"], result["case"], result["peer"]): result["met"] for result in made()["results"]}
    expect(met["hot", "4 KiB random, 1 reader", "native"] is False, "0.945 keeps no 0.97")
    expect(met["hot", "1 MiB sequential", "native"] is True, "2 keeps 0.97")
    expect(met["pool", "4 KiB random", "bindfs"] is None, "no limit, no verdict")
    expect(met["footprint", "2 images, memory of the whole system", None] is True, "5 MiB of 6")
    expect(met["mixed", "p99 of hits while misses run ÷ without", None] is False, "2.0 of 1.5")


def the_table_has_every_result():
    """Losses like wins, references, failures on one line."""
    document = made()
    rows = report.table_rows(document)[2:]
    expect(len(rows) == len(document["results"]), "a row for each result")
    expect(all(len(report.cells_of(row)) == 10 for row in rows), "ten cells in each")
    text = report.table(document)
    for part in ("**not met**", "overlayfs 9.0 MiB", "failed: no / memory at all", "Note: it rained.",
                 "this kernel has no erofs"):
        expect(part in text, f"'{part}' in the table")
    expect("Peers that can't run here: erofs (this kernel has no erofs)." in text, "only those that were asked for")


def the_summary_has_a_row_for_each_limit():
    """Cases of one limit together, with the worst of them; those that are lost again below."""
    text = report.summary(made())
    expect("| hot | ÷ native, 2 cases | dev | 1.47 | lowest 0.95: 4 KiB random, 1 reader | ≥ 0.97 | **not met** in 1 |"
           in text, "the cases of hot together")
    expect("bindfs" not in text, "what has no limit is not in the summary")
    expect(text.count("4 KiB random, 1 reader") == 2, "the lost case once more")
    expect("| storm | 16 clones |" in text, "a failure has a row")


def amounts_of_one_kind_are_together():
    """With the one that is nearest its limit."""
    document = made()
    other = copy.deepcopy(next(result for result in document["results"] if result["kind"] == "amount"))
    other.update(case="16 images, memory of the whole system", limit=5 << 20)
    document["results"].append(other)
    expect("| footprint | N images, memory of the whole system, 2 cases | dev | 5.0 MiB | nearest its limit: 16 images "
           "| ≤ 5.0 MiB | met |" in report.summary(document), "the cases together")
    other.update(figure=6 << 20, met=False)
    expect("**not met** in 1" in report.summary(document), "one of them lost")


def what_failed_twice_is_one_row():
    """Also beside an amount of the same name."""
    document = made()
    failure = next(result for result in document["results"] if result["kind"] == "failure")
    document["results"] += [failure, dict(failure, case="2 images, memory of the whole system", scenario="footprint")]
    rows = "\n".join(report.summary_rows(document))
    expect(rows.count("| storm | 16 clones |") == 1, "one row")
    expect(rows.count("memory of the whole system | dev |") == 2 + 1, "a row for the failure too")


def the_readme_has_what_users_ask_first():
    """Beside the plain file system, what is lost as well as what is won; nothing that was not measured."""
    rows = report.short(kept()).splitlines()
    expect(sum(line.startswith("| ") for line in rows) == 2 + 7, "seven rows")
    expect(any("16 alike images" in line and "GiB" in line for line in rows), "memory of images")
    document = made()
    expect("16 clones boot" not in report.short(document), "no row of what was not measured")
    expect("| hot reads of 4 KiB, random | 100 /s | 94 /s | 0.95 |" in report.short(document), "a row of what was")


def the_documents_say_what_the_result_file_says():
    """README.md and docs/benchmarks.md are what bench/report makes; no figure in them was typed."""
    document, name = kept(), os.path.basename(KEPT)
    with open(os.path.join(TOP, "README.md"), encoding="utf-8") as file:
        text = file.read()
    expect(report.into(text, report.short(document)) == text, "README.md")
    with open(os.path.join(TOP, "docs", "benchmarks.md"), encoding="utf-8") as file:
        expect(file.read() == report.whole(document, name), "docs/benchmarks.md")


def two_limits_against_one_peer_stay_apart():
    document = made()
    other = copy.deepcopy(document["results"][0])
    other["limit"] = 0.5
    document["results"].append(other)
    rows = [row for row in report.summary_rows(document) if row.startswith("| hot ")]
    expect(len(rows) == 2 and "≥ 0.50" in rows[1], "a row for each limit")


def an_older_file_still_reads():
    """One that has neither peers nor references."""
    document = kept()
    del document["peers"]
    document["results"] = [result for result in document["results"] if result["kind"] != "reference"]
    expect(len(report.table_rows(document)) == len(document["results"]) + 2, "a row for each result")
    expect("hot" in report.summary(document), "a summary")
    text = report.into(f"a\n{report.MARK_BEGIN}\nformer\n{report.MARK_END}\nb\n", report.summary(document))
    expect(text.startswith("a\n") and text.endswith("b\n") and "former" not in text, "between the marks of a README")


class Page(html.parser.HTMLParser):
    """What is in a page: every tag closed, nothing from elsewhere."""

    EMPTY = {"meta", "path", "use", "rect", "line", "br"}

    def __init__(self, text):
        super().__init__()
        self.open, self.seen, self.links = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.seen.append(tag)
        self.links += [value for name, value in attrs if name in ("src", "href", "xlink:href") and value[:1] != "#"]
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in self.EMPTY:
            expect(self.open and self.open.pop() == tag, f"</{tag}> closes what is open")


def the_page_has_plots_and_needs_no_network():
    """Of a new file and of an old one."""
    if not importlib.util.find_spec("matplotlib"):
        raise Skip("this Python has no matplotlib")
    from harness import page
    for document, plots in ((made(), 8), (kept(), 7)):
        text = page.text(document)
        parsed = Page(text)
        expect(not parsed.open, f"every tag is closed: {parsed.open}")
        expect(not parsed.links, f"nothing is fetched: {parsed.links}")
        expect(parsed.seen.count("svg") >= plots, f"{parsed.seen.count('svg')} plots")
        expect("<script" not in text and "a <machine>" not in text, "names are escaped")


def a_group_joins_before_the_program_starts():
    """Each of its directories, in order, then the program itself with its own arguments."""
    group = groups.Group.__new__(groups.Group)
    group.directories = ["/a", "/b"]
    command = group.wrap(["load", "--op", "a b"])
    expect(command[:2] == ["sh", "-c"] and command[3:] == ["/a /b", "load", "--op", "a b"], str(command))
    group.directories = []
    expect(group.wrap(["load"]) == ["load"], "without a group the command is as it was")


TESTS = (verdicts_follow_the_limits, the_table_has_every_result, the_summary_has_a_row_for_each_limit,
         amounts_of_one_kind_are_together, what_failed_twice_is_one_row,
         the_readme_has_what_users_ask_first, the_documents_say_what_the_result_file_says,
         two_limits_against_one_peer_stay_apart, an_older_file_still_reads, the_page_has_plots_and_needs_no_network,
         a_group_joins_before_the_program_starts)


def main():
    counts = {"PASSED": 0, "FAILED": 0, "SKIPPED": 0}
    for test in TESTS:
        try:
            test()
            result = "PASSED"
        except Skip as why:
            result = "SKIPPED"
            print(f"{test.__name__}: {why}")
        except Exception:  # pylint: disable=broad-except
            result = "FAILED"
            print(f"{test.__name__}:\n{traceback.format_exc()}")
        counts[result] += 1
    for result, count in counts.items():
        if count:
            print(f"[  {result:7} ] {count} test(s).")
    return 1 if counts["FAILED"] else 0


if __name__ == "__main__":
    sys.exit(main())
