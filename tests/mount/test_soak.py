# SPDX-License-Identifier: Apache-2.0
"""scripts/soak itself: a round of it, and the page that its results go to."""

import json
import os

import limits
from harness import ROOT, check, equal, test

SOAK = os.path.join(ROOT, "tests", "soak")


@test(suite="full", timeout=240, presets=("release",), transports="none")
def one_round(t):
    """The shortest soak there is: torture, a mix and a crash are played, all of it is counted, and it is clean."""
    t.need("fio")
    output = t.path("soak.json")
    result = t.run([os.path.join(SOAK, "run"), "0.0001", "--seed", str(t.seed), "--build", t.build,
                    "--output", output], timeout=220, status=None,
                   env=dict(os.environ, FOLDFS_TEST_DIR=t.directory))
    check(result.returncode == 0, "status %d: %s%s" % (
        result.returncode, result.stdout[-4000:], result.stderr[-2000:]))
    with open(output) as file:
        document = json.load(file)
    equal(document["outcome"], "clean", "outcome")
    for name in ("rounds", "torture_rounds", "operations", "fio_runs", "fio_bytes_written", "bystander_reads",
                 "audits", "kills", "acknowledged_writes", "breaks", "merges"):
        check(document["figures"][name] > 0, "%s was not counted: %s" % (name, document["figures"]))


@test(presets=("release",), transports="none")
def the_page_is_what_the_results_say(t):
    """docs/reliability.md has the table of the result files, and each test that it names is there."""
    t.run([os.path.join(SOAK, "report"), "--check"])


@test(presets=("release",), transports="none")
def a_limit_is_of_time_in_which_the_machine_ran(t):
    """Time limits of all tests: a minute in which nobody could ask counts for two seconds, one in which
    somebody did counts whole."""
    class Clock:
        now = 0.0

        def monotonic(self):
            return self.now

    real, limits.time = limits.time, Clock()
    try:
        limit = limits.Limit(30)
        limits.time.now += 60
        check(not limit.passed(), "a machine that stood still for a minute used up 30 seconds")
        for _ in range(27):
            limits.time.now += 1
            check(not limit.passed(), "passed with %g s left" % limit.left)
        limits.time.now += 2
        check(limit.passed(), "not passed after 31 s that count")
    finally:
        limits.time = real
