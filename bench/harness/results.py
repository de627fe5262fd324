# SPDX-License-Identifier: Apache-2.0
"""Results: one object for each scenario, case, peer and metric."""

import statistics


def spread(samples):
    return {"samples": samples, "median": statistics.median(samples), "min": min(samples),
            "max": max(samples)}


def verdict(figure, limit, sense):
    """Whether a figure keeps its limit; None where there is no limit."""
    if limit is None:
        return None
    return figure >= limit if sense == ">=" else figure <= limit


class Results:
    """What a run has found, in the order it was found."""

    def __init__(self, about, tell):
        self.about = about
        self.tell = tell  # called with each object as it is found
        self.objects = []

    def _add(self, scenario, case, transport, fields):
        result = {"scenario": scenario, "case": case, "transport": transport, **fields,
                  "machine": self.about["machine"], "kernel": self.about["kernel"],
                  "versions": self.about["versions"]}
        self.objects.append(result)
        self.tell(result)
        return result

    def ratio(self, scenario, case, transport, metric, ours, peer, theirs, limit=None, extra=None):
        """Samples of foldfs against those of PEER, pair by pair; more is better."""
        ratios = [a / b for a, b in zip(ours, theirs)]
        figure = statistics.median(ratios)
        return self._add(scenario, case, transport, {
            "peer": peer, "metric": metric, "kind": "ratio", **spread(ours),
            "peer_result": spread(theirs), "ratio": figure, "ratio_min": min(ratios),
            "ratio_max": max(ratios), "figure": figure, "limit": limit, "sense": ">=",
            "met": verdict(figure, limit, ">="), **(extra or {})})

    def amount(self, scenario, case, transport, metric, samples, limit=None, extra=None):
        """Samples of foldfs that are judged by themselves; less is better."""
        result = spread(samples)
        return self._add(scenario, case, transport, {
            "peer": None, "metric": metric, "kind": "amount", **result,
            "figure": result["median"], "limit": limit, "sense": "<=",
            "met": verdict(result["median"], limit, "<="), **(extra or {})})

    def reference(self, scenario, case, peer, transport, metric, samples, extra=None):
        """Samples of a peer alone, to stand beside foldfs's amount of the same case; judged by nobody."""
        result = spread(samples)
        return self._add(scenario, case, transport, {
            "peer": peer, "metric": metric, "kind": "reference", **result, "figure": result["median"],
            "limit": None, "sense": "<=", "met": None, **(extra or {})})

    def failure(self, scenario, case, transport, why):
        return self._add(scenario, case, transport, {
            "peer": None, "metric": "failure", "kind": "failure", "error": why, "limit": None,
            "figure": None, "met": False})

    def document(self, peers, seconds):
        return {**self.about, "peers": peers, "seconds": seconds, "results": self.objects}
