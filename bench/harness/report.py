# SPDX-License-Identifier: Apache-2.0
"""Tables out of a result file. Losses are printed like wins."""

import re
import statistics

MARK_BEGIN = "<!-- bench:begin -->"
MARK_END = "<!-- bench:end -->"

NOT_ASKED = "no scenario of this run asks for it"
UNITS = ((1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"))


def bytes_text(value):
    for size, name in UNITS:
        if abs(value) >= size:
            return f"{value / size:.1f} {name}"
    return f"{value:.1f} B" if value % 1 else f"{value:.0f} B"


def value_text(metric, value):
    if value is None:
        return "–"
    if metric == "bytes_per_s":
        return f"{value / 1e9:.2f} GB/s"
    if metric == "ops_per_s":
        return f"{value / 1e3:.1f} k/s" if value >= 1000 else f"{value:.0f} /s"
    if metric == "bytes":
        return bytes_text(value)
    if metric == "starts_per_s":
        return f"{value:.2f} /s"
    if metric == "ratio":
        return f"{value:.2f}"
    if metric == "share":
        return f"{100 * value:.1f} %"
    if metric == "ns":
        return f"{value:.0f} ns"
    return f"{value:.0f} {metric}" if value >= 100 or value == int(value) else f"{value:.2f} {metric}"


def met_text(result):
    return {True: "met", False: "**not met**", None: "–"}[result["met"]]


def limit_text(result):
    if result["limit"] is None:
        return "–"
    if result["kind"] == "ratio":
        return f"≥ {result['limit']:.2f}"
    return f"≤ {value_text(result['metric'], result['limit'])}"


def row(*cells):
    return "| " + " | ".join(cells) + " |"


def plain(text):
    """Fit for a cell."""
    return " ".join(text.replace("|", "/").split())


def cells_of(line):
    """What row() was given."""
    return line.removeprefix("| ").removesuffix(" |").split(" | ")


def detail_row(result):
    transport = result["transport"] or "–"
    if result["kind"] == "failure":
        return row(result["scenario"], result["case"], transport, "–", "–", "–",
                   f"failed: {plain(result['error'])}", "–", "–", "**not met**")
    metric = result["metric"]
    ours = value_text(metric, result["median"])
    if result["kind"] == "amount":
        span = f"{value_text(metric, result['min'])} … {value_text(metric, result['max'])}"
        native = result.get("native_samples")
        peer = f"native {value_text(metric, statistics.median(native))}" if native else "–"
        return row(result["scenario"], result["case"], transport, ours, peer, ours, span, "–",
                   limit_text(result), met_text(result))
    if result["kind"] == "reference":
        span = f"{value_text(metric, result['min'])} … {value_text(metric, result['max'])}"
        return row(result["scenario"], result["case"], transport, "–", f"{result['peer']} {ours}", "–", span, "–", "–",
                   "–")
    peer = f"{result['peer']} {value_text(metric, result['peer_result']['median'])}"
    span = f"{result['ratio_min']:.2f} … {result['ratio_max']:.2f}"
    middle = result.get("ratio_p50")
    return row(result["scenario"], result["case"], transport, ours, peer,
               f"{result['ratio']:.2f}", span, f"{middle:.2f}" if middle else "–",
               limit_text(result), met_text(result))


def line(result):
    """One result as a line for whoever watches the run."""
    transport = f" ({result['transport']})" if result["transport"] else ""
    begin = f"  {result['scenario']}: {result['case']}{transport}: "
    if result["kind"] == "failure":
        return f"{begin}failed: {result['error']}"
    end = "" if result["met"] in (True, None) else f", limit {limit_text(result)}: not met"
    if result["kind"] == "ratio":
        middle = result.get("ratio_p50")
        typical = f" (by median latency {middle:.2f})" if middle else ""
        return f"{begin}{result['ratio']:.2f} of {result['peer']}{typical}{end}"
    who = f"{result['peer']} " if result["kind"] == "reference" else ""
    return f"{begin}{who}{value_text(result['metric'], result['median'])}{end}"


def table_rows(document):
    """Every figure of a result file."""
    head = [row("scenario", "case", "transport", "foldfs", "peer", "figure", "range", "by p50", "limit", "verdict"),
            row(*["---"] * 10)]
    return head + [detail_row(result) for result in document["results"]]


def peer_rows(document):
    """Every peer that was asked for, those that can't run here with the reason. Older files have none."""
    peers = document.get("peers", [])
    rows = [row(peer["name"], peer["what"], peer["version"] or "–",
                "yes" if peer["used"] else f"no: {peer['reason']}") for peer in peers]
    return [row("peer", "what it is", "version", "takes part"), row(*["---"] * 4), *rows] if rows else []


def table(document):
    peers = peer_rows(document)
    return "\n".join(table_rows(document) + [""] + (peers + [""] if peers else []) + about(document))


def about(document):
    versions = document["versions"]
    seconds = sum(document.get("seconds", {}).values())
    took = f", {seconds / 60:.0f} minutes" if seconds else ""
    text = (f"{document['machine']}; Linux {document['kernel']}; {versions['foldfs']} "
            f"({versions['revision']}), libfuse {versions['libfuse']}; {document['rounds']} rounds"
            f"{', quick' if document['quick'] else ''}{took}; {document['date']}.")
    missing = [f"{peer['name']} ({peer['reason']})" for peer in document.get("peers", [])
               if not peer["used"] and peer["reason"] != NOT_ASKED]
    lines = [text] + [f"Note: {note}." for note in document["notes"]]
    return lines + ([f"Peers that can't run here: {'; '.join(missing)}."] if missing else [])


def groups(document):
    """Results that have a limit: ratios by scenario, transport, peer and limit; amounts by scenario, transport and
    what they are of, whatever the number in it; failures by what failed."""
    grouped = {}
    for result in document["results"]:
        if result["kind"] == "reference" or (result["kind"] != "failure" and result["limit"] is None):
            continue
        what = {"failure": result["case"], "amount": re.sub(r"10\^\d+|\d+", "N", result["case"])}.get(result["kind"])
        limit = result["limit"] if result["kind"] == "ratio" else None
        key = (result["scenario"], result["transport"], result["peer"], result["kind"], what, limit)
        grouped.setdefault(key, []).append(result)
    return grouped


def nearness(result):
    """How near an amount is to its limit; 1 is at it."""
    return result["figure"] / result["limit"] if result["limit"] else 1 + result["figure"]


def summary_row(key, results):
    scenario, transport, peer, kind, what, _ = key
    met = sum(1 for result in results if result["met"])
    verdict = "met" if met == len(results) else f"**not met** in {len(results) - met}"
    if kind == "failure" or (kind == "amount" and len(results) == 1):
        cells = cells_of(detail_row(results[0]))
        return row(scenario, results[0]["case"], transport or "–", cells[5], cells[6], cells[8], cells[9])
    if kind == "amount":
        worst = max(results, key=nearness)
        cells = cells_of(detail_row(worst))
        return row(scenario, f"{what}, {len(results)} cases", transport or "–", cells[5],
                   f"nearest its limit: {worst['case'].split(',')[0]}", cells[8], verdict)
    worst = min(results, key=lambda result: result["ratio"])
    middle = statistics.median(result["ratio"] for result in results)
    cases = f"{len(results)} case" + ("s" if len(results) > 1 else "")
    return row(scenario, f"÷ {peer}, {cases}", transport, f"{middle:.2f}",
               f"lowest {worst['ratio']:.2f}: {worst['case']}", limit_text(worst), verdict)


def summary_rows(document):
    """One row for each limit."""
    lines = [row("scenario", "what", "transport", "figure", "range", "limit", "verdict"), row(*["---"] * 7)]
    return lines + [summary_row(key, results) for key, results in groups(document).items()]


def lost_rows(document):
    """Every ratio that does not keep its limit."""
    lost = [result for results in groups(document).values() for result in results
            if not result["met"] and result["kind"] == "ratio"]
    head = [row("scenario", "case", "transport", "foldfs", "peer", "figure", "range", "by p50", "limit"),
            row(*["---"] * 9)]
    return head + [detail_row(result).rsplit(" | ", 1)[0] + " |" for result in lost] if lost else []


# What a README shows: a label, the scenario and the beginning of the case. Good rows and bad ones.
HEADLINES = (
    ("16 clones boot for the first time, disk at 500 reads a second", "storm", "16 clones boot first, disk throttled"),
    ("the same on a fast disk", "storm", "16 clones boot first, raw disk"),
    ("hot reads of 4 KiB, random", "hot", "4 KiB random, 1 reader"),
    ("hot reads of 1 MiB, sequential", "hot", "1 MiB sequential, 1 reader"),
    ("buffered writes of 4 KiB, random", "write", "4 KiB random, private pages"),
)


def headline_row(label, results):
    """The first of RESULTS beside the plain file system."""
    for result in results:
        native = value_text(result["metric"], result["peer_result"]["median"])
        return row(label, native, value_text(result["metric"], result["median"]), f"{result['ratio']:.2f}")
    return None


def memory_rows(document):
    """The most images there are figures for: what the page cache takes, and foldfs."""
    found = [result for result in document["results"]
             if result["scenario"] == "footprint" and re.match(r"\d+ images, memory of the whole system", result["case"])]
    ours = max((result for result in found if result["kind"] == "amount"), key=lambda result: result["images"], default=None)
    plain_one = next((result for result in found if ours and result["kind"] == "reference" and result["peer"] == "native"
                      and result["images"] == ours["images"]), None)
    if not plain_one:
        return []
    holes = plain_one["median"] - ours["nonzero_bytes"]
    equal = ours["nonzero_bytes"] - ours["unique_bytes"]
    return [row(f"memory for {ours['images']} alike images that were read as a whole", bytes_text(plain_one["median"]),
                bytes_text(ours["median"]), f"{ours['median'] / plain_one['median']:.2f}"),
            row("of the difference: holes that the page cache fills, and equal pages", "",
                f"{bytes_text(holes)}, {bytes_text(equal)}", "")]


def short(document):
    """For a README: what the most users ask first, beside the plain file system."""
    rows = [row("", "plain file system", "foldfs", "ratio"), row(*["---"] * 4), *memory_rows(document)]
    for label, scenario, case in HEADLINES:
        results = [result for result in document["results"]
                   if result["scenario"] == scenario and result["kind"] == "ratio" and result["peer"] == "native"
                   and (result["case"] == case or result["case"].startswith(case + ", read"))]
        rows.append(headline_row(label, sorted(results, key=lambda result: (result["transport"] or "") != "dev")))
    return "\n".join([line for line in rows if line] + [""] + about(document))


def summary(document):
    """One row for each limit; under it every case that does not keep its limit."""
    lost = lost_rows(document)
    return "\n".join(summary_rows(document) + (["", "Not met:", "", *lost] if lost else []) + [""] + about(document))


def whole(document, name):
    """A page of Markdown with everything that the result file NAME has, but for the samples."""
    parts = ["# Benchmarks", f"Made by `bench/report` from [results/{name}](results/{name}), which has the samples too; "
             "[performance.md](performance.md) says why figures are what they are. Ratios are medians of pairs of one "
             "round, by turns; what is met and what is not is said against the project's own limits.",
             "## Each limit", summary(document), "## Every figure", table(document)]
    return "\n\n".join(parts) + "\n"


def into(text, table_text):
    """TEXT with TABLE_TEXT between the marks. ValueError if it has none."""
    begin, end = text.find(MARK_BEGIN), text.find(MARK_END)
    if begin < 0 or end < begin:
        raise ValueError(f"no {MARK_BEGIN} … {MARK_END}")
    return f"{text[:begin + len(MARK_BEGIN)]}\n{table_text}\n{text[end:]}"
