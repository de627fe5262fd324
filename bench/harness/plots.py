# SPDX-License-Identifier: Apache-2.0
"""Plots of a result file, as SVG. Nothing is drawn that the file does not say; a plot without data is left out.

Needs matplotlib. Each function takes the list of results and returns (title, what it shows, SVG), in a list.
"""

import io
import re
import statistics

import matplotlib
import matplotlib.ticker

matplotlib.use("svg")
import matplotlib.pyplot as plt  # noqa: E402  (after the backend is chosen)

plt.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "foldfs", "font.family": "sans-serif", "font.size": 9,
                     "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.color": "#e4e4e4",
                     "axes.axisbelow": True, "legend.frameon": False})

OURS = ("#0b6e4f", "#3aa17e", "#7cc7a9", "#b5dfcd")
THEIRS = ("#b5443a", "#d98e04", "#4c6fb1", "#8a5a9e", "#6b6b6b", "#c06c9a", "#8c8c3a", "#2f8fa3", "#a0522d", "#999999")
POINTS = {"p50": "50 %", "p90": "90 %", "p99": "99 %", "p999": "99.9 %"}
MIB = 1 << 20


def _svg(figure):
    text = io.StringIO()
    figure.savefig(text, format="svg", bbox_inches="tight", metadata={"Date": None, "Creator": None})
    plt.close(figure)
    return text.getvalue()[text.getvalue().index("<svg"):]


class Colours:
    """One colour for each name, foldfs's apart from all others'."""

    def __init__(self):
        self.given = {}

    def of(self, name):
        palette = OURS if name.startswith("foldfs") else THEIRS
        if name not in self.given:
            same = sum(1 for other in self.given if other.startswith("foldfs") == name.startswith("foldfs"))
            self.given[name] = palette[same % len(palette)]
        return self.given[name]


def _name(result):
    peer = result["peer"] or "foldfs"
    return f"{peer} ({result['transport']})" if result["transport"] and peer == "foldfs" else peer


# ---- memory against the number of images --------------------------------------------------------

def _images_of(result):
    found = re.match(r"(\d+) images, memory of the whole system$", result["case"])
    return int(found.group(1)) if found and result["scenario"] == "footprint" else None


def memory(results):
    lines, unique, limits = {}, {}, {}
    for result in results:
        count = _images_of(result)
        if count is None or result["kind"] == "failure":
            continue
        lines.setdefault(_name(result), {})[count] = result["median"] / MIB
        if result.get("unique_bytes"):
            unique[count], limits[count] = result["unique_bytes"] / MIB, result["limit"] / MIB
        if result.get("native_samples"):
            lines.setdefault("native", {})[count] = statistics.median(result["native_samples"]) / MIB
    if not lines:
        return []
    figure, axes = plt.subplots(figsize=(7.4, 4))
    colours = Colours()
    for name, points in lines.items():
        counts = sorted(points)
        axes.plot(counts, [points[count] for count in counts], marker="o", markersize=4, color=colours.of(name),
                  linewidth=2 if name.startswith("foldfs") else 1.2, label=name)
    for label, points, style in (("unique bytes", unique, ":"), ("limit", limits, "--")):
        if points:
            axes.plot(sorted(points), [points[count] for count in sorted(points)], style, color="#444444", label=label)
    axes.set(xlabel="images read whole", ylabel="memory of the whole system, MiB", yscale="log")
    axes.yaxis.set_major_locator(matplotlib.ticker.LogLocator(base=2, numticks=20))
    axes.yaxis.set_minor_locator(matplotlib.ticker.NullLocator())
    axes.yaxis.set_major_formatter(matplotlib.ticker.FormatStrFormatter("%d"))
    axes.set_xticks(sorted({count for points in lines.values() for count in points}))
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1))
    return [("Memory against the number of images",
             "MemTotal − MemFree since all caches were dropped. Dotted: the unique bytes that the images have. "
             "The scale is logarithmic.",
             _svg(figure))]


# ---- latency distributions ----------------------------------------------------------------------

def _latency_lines(results, case_of):
    """By case: by name: the latencies."""
    cases = {}
    for result in results:
        if not result.get("latency_us") or result["kind"] == "failure":
            continue
        lines = cases.setdefault(case_of(result), {})
        if result["scenario"] == "mixed":
            lines[f"{_name(result)}, alone"] = result["alone_latency_us"]
            lines[f"{_name(result)}, misses run"] = result["latency_us"]
        else:
            ours = re.search(r", (foldfs over [^,]*)$", result["case"])
            name = ours.group(1) if ours else "foldfs"
            lines[f"{name} ({result['transport']})"] = result["latency_us"]
            if result.get("peer_latency_us"):
                lines[_peer_label(result)] = result["peer_latency_us"]
    return cases


def _peer_label(result):
    """null_fuse and passthrough_hp run on the transport of the foldfs beside them."""
    own = result["peer"].startswith(("null_fuse", "passthrough_hp"))
    return f"{result['peer']} ({result['transport']})" if own else result["peer"]


def latencies(results):
    """One picture for each scenario: a panel for each of its cases of small operations."""
    plots = []
    for scenario in ("hot", "pool", "write", "mixed", "storm"):
        chosen = [result for result in results if result["scenario"] == scenario and _is_small(result)]
        cases = _latency_lines(chosen, lambda result: result["transport"] if result["scenario"] == "mixed"
                               else re.sub(r", foldfs over [^,]*$", "", result["case"]))
        if not cases:
            continue
        columns = min(len(cases), 2)
        rows = (len(cases) + columns - 1) // columns
        figure, grid = plt.subplots(rows, columns, figsize=(4.6 * columns + 1, 3.1 * rows), squeeze=False)
        colours = Colours()
        for axes, (case, lines) in zip(grid.flat, cases.items()):
            _latency_panel(axes, case, lines, colours)
        for axes in list(grid.flat)[len(cases):]:
            axes.set_axis_off()
        figure.tight_layout()
        plots.append((f"Latency: {scenario}", "Of one operation; medians over the rounds. The scale is logarithmic.",
                      _svg(figure)))
    return plots


def _is_small(result):
    return result["scenario"] in ("mixed", "storm") or "4 KiB" in result["case"] and "mmap" not in result["case"]


def _latency_panel(axes, case, lines, colours):
    for name, latency in lines.items():
        points = [point for point in POINTS if latency.get(point)]
        axes.plot([POINTS[point] for point in points], [latency[point] for point in points], marker="o", markersize=3.5,
                  color=colours.of(name.removesuffix(", alone").removesuffix(", misses run")), linewidth=1.8 if name.startswith("foldfs") else 1.1, label=name,
                  linestyle="--" if name.endswith("alone") else "-")
    axes.set(yscale="log", ylabel="µs", title=case)
    axes.title.set_fontsize(9)
    axes.legend(fontsize=7)


# ---- speed against peers ------------------------------------------------------------------------

def speeds(results):
    """One picture for each scenario: a row for each case, a mark for each peer with its range."""
    plots = []
    scenarios = dict.fromkeys(result["scenario"] for result in results if result["kind"] == "ratio")
    for scenario in scenarios:
        chosen = [result for result in results if result["scenario"] == scenario and result["kind"] == "ratio"]
        plots.append((f"Speed: {scenario}",
                      "foldfs ÷ peer; right of the line foldfs is faster. A mark is the median of the pairs, its bar their "
                      "range, a grey tick the limit against that peer. The scale is logarithmic.", _speed_plot(chosen)))
    return plots


def _speed_plot(chosen):
    rows = list(dict.fromkeys((result["case"], result["transport"]) for result in chosen))
    peers = list(dict.fromkeys(result["peer"] for result in chosen))
    colours = Colours()
    figure, axes = plt.subplots(figsize=(7.4, 0.8 + 0.12 * len(rows) * (len(peers) + 1)))
    for result in chosen:
        at = rows.index((result["case"], result["transport"])) + (peers.index(result["peer"]) - (len(peers) - 1) / 2) * \
            (0.8 / len(peers))
        axes.plot([result["ratio_min"], result["ratio_max"]], [at, at], color=colours.of(result["peer"]), linewidth=1)
        axes.plot([result["ratio"]], [at], "o", markersize=4.5, color=colours.of(result["peer"]))
        if result["limit"]:
            axes.plot([result["limit"]], [at], "|", markersize=9, color="#555555")
    for peer in peers:
        axes.plot([], [], "o", color=colours.of(peer), label=peer)
    axes.axvline(1, color="#444444", linewidth=1)
    axes.set(xscale="log", xlabel="foldfs ÷ peer")
    axes.xaxis.set_major_locator(matplotlib.ticker.LogLocator(base=2, numticks=20))
    axes.xaxis.set_minor_locator(matplotlib.ticker.NullLocator())
    axes.xaxis.set_major_formatter(matplotlib.ticker.FormatStrFormatter("%g"))
    axes.set_yticks(range(len(rows)), [f"{case} ({transport})" if transport else case for case, transport in rows],
                    fontsize=7.5)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1))
    return _svg(figure)


# ---- curves over the share of equal pages -------------------------------------------------------

def sharing(results):
    chosen = [result for result in results if result["scenario"] == "sharing" and "percent" in result]
    if not chosen:
        return []
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.4, 3.6))
    colours = Colours()
    amounts = [result for result in chosen if result["case"].endswith("memory of the whole system")]
    _curve(left, amounts, lambda result: (_name(result), result["median"] / MIB), colours)
    unique = {result["percent"]: result["unique_bytes"] / MIB for result in amounts}
    left.plot(sorted(unique), [unique[percent] for percent in sorted(unique)], ":", color="#444444", label="unique bytes")
    left.set(ylabel="memory of the whole system, MiB", ylim=(0, None))
    ratios = [result for result in chosen if result["kind"] == "ratio"]
    _curve(right, ratios, lambda result: (f"foldfs ({result['transport']}), "
                                          f"{'first read' if 'first read' in result['case'] else 'from the pool'}",
                                          result["ratio"]), colours)
    right.axhline(1, color="#444444", linewidth=1)
    right.set(ylabel="speed ÷ native", ylim=(0, None))
    for axes in (left, right):
        axes.set(xlabel="pages that are equal in all files, %")
        if axes.lines:
            axes.legend(fontsize=7.5)
    figure.tight_layout()
    return [("Over the share of equal pages", "Synthetic files; memory after all were read, and speed.", _svg(figure))]


def _curve(axes, results, point_of, colours):
    lines = {}
    for result in results:
        name, value = point_of(result)
        lines.setdefault(name, {})[result["percent"]] = value
    for name, points in lines.items():
        axes.plot(sorted(points), [points[percent] for percent in sorted(points)], marker="o", markersize=4,
                  color=colours.of(name), label=name)


# ---- cost in large numbers ----------------------------------------------------------------------

def scale(results):
    chosen = [result for result in results if result["scenario"] == "scale" and "count" in result]
    panels = [("bytes", "bytes each"), ("ns", "nanoseconds for a look-up"), ("instructions", "instructions of a look-up")]
    panels = [panel for panel in panels if any(result["metric"] == panel[0] for result in chosen)]
    if not panels:
        return []
    figure, grid = plt.subplots(1, len(panels), figsize=(3.6 * len(panels), 3.2), squeeze=False)
    colours = Colours()
    for axes, (metric, label) in zip(grid.flat, panels):
        for what in dict.fromkeys(result["what"] for result in chosen):
            points = sorted((result["count"], result["median"]) for result in chosen
                            if result["what"] == what and result["metric"] == metric)
            if points:
                axes.plot(*zip(*points), marker="o", markersize=4, color=colours.of(what), label=what)
        axes.set(xscale="log", xlabel="frames or pages", ylabel=label, ylim=(0, None))
        axes.legend(fontsize=7.5)
    figure.tight_layout()
    return [("Cost in large numbers", "The index and the page map by themselves (bench/scale.c).", _svg(figure))]


def all_of(results):
    found = []
    for plot in (memory, speeds, latencies, sharing, scale):
        found += plot(results)
    return found
