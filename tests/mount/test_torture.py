# SPDX-License-Identifier: Apache-2.0
"""The torture tool, briefly: random operations against a shadow model, and the bugs that it must find.

tests/torture/run does the same for as long as one likes; its README.md says how.
"""

import importlib
import os
import sys

import harness
from harness import HERE, check, equal, test

sys.path.insert(0, os.path.join(os.path.dirname(HERE), "torture"))

import planted
import rounds
import shrink

SHAPES = {
    "one_worker": {"processes": 1, "threads": 1, "behind": True, "options": {"pool": "1M", "window": "256K"}},
    "workers": {"processes": 2, "threads": 3, "behind": True, "options": {"pool": "1M", "window": "256K"}},
    "direct": {"processes": 3, "threads": 1, "behind": False, "options": {"pool": "1M", "window": "0"}},
    "many_files": {"processes": 1, "threads": 4, "files": 24, "options": {"pool": "2M", "maps": "64K"}},
    "own_passthrough": {"processes": 1, "threads": 2, "files": 24, "words": ["passthrough=f[13579]"]},
    "overlay": {"kind": "overlay", "processes": 1, "threads": 4},
    "read_only": {"kind": "ro", "processes": 1, "threads": 4},
}


def place_of(t, daemon=None, bug=None):
    return rounds.Place(t.preset, t.build, t.make_dir("rounds"), daemon, bug)


@test(timeout=60, transports="full", variants=SHAPES)
def random_operations(t, shape):
    """Every operation there is, at random; every read is right, and at the end mount, model and source are
    the same, the audit is content and nothing is left in the pool once the files are gone."""
    shape = {"kind": "pages", **shape}
    operations = t.scaled(2500, 600) if shape["kind"] == "pages" else 2500
    config = rounds.random_config(t.seed, [t.transport], operations, shape)
    result = rounds.play(place_of(t), config)
    check(result.outcome == "ok", "%s: %s\nagain: tests/torture/run --preset %s --replay with\n#config %s" % (
        result.outcome, result.text, t.preset, config))
    if config["kind"] == "pages":
        check(result.status["breaks"] and result.status["merges"], "it broke and merged pages: %s" % result.status)


@test(timeout=240, presets=("release",))
def planted_bugs_are_found(t):
    """Each bug of tests/torture/planted.c is found, and nothing is found where there is none."""
    command = [os.path.join(HERE, "..", "torture", "run"), "--preset", t.preset, "--build", t.build,
               "--seed", str(t.rng.randrange(1 << 31)), "--transport", t.transport, "--planted", "all"]
    place = dict(t.environment(), FOLDFS_TEST_DIR=t.make_dir("rounds"))
    found = t.run(command, timeout=230, env=place).stdout
    print(found)
    check("\n%d of %d found\n" % (len(planted.BUGS), len(planted.BUGS)) in found, found)


@test(suite="full", timeout=120, presets=("release",), variants={bug: bug for bug in planted.ELSEWHERE})
def what_rounds_do_not_find(t, bug):
    """A bug that no round of torture finds fails the mount test that the table names, which passes without it."""
    _, name, *variant = planted.ELSEWHERE[bug]
    module, function = name.split(".")
    function = getattr(importlib.import_module("test_" + module), function)
    check(not harness.finds(t, None, function, *variant), "%s fails without a bug" % name)
    check(harness.finds(t, bug, function, *variant), "%s does not find it" % name)


@test(timeout=60, presets=("release",))
def failures_are_shrunk_and_replayed(t):
    """A failure's list of operations becomes short, and the script that is written of it fails again."""
    name = "cut_page_kept"
    place = place_of(t, planted.daemon_of(t.build), name)
    config = dict(planted.config_of(name, t.seed, [t.transport]), operations=500)
    for config["seed"] in range(t.seed, t.seed + planted.ATTEMPTS):
        result = rounds.play(place, config)
        if result.outcome != "ok":
            break
    check(result.outcome == "model", "found by %s: %s" % (result.outcome, result.text))
    shrinker = shrink.Shrinker(place, result, 600, print, tries=8)
    lines = shrinker.shrink(result.script)
    check(lines and len(lines) < len(result.script), "%d operations are left of %d" % (
        len(lines or ()), len(result.script)))
    path = t.path("script")
    rounds.write_script(path, result.config, lines, shrinker.serial, shrinker.text)
    # What a race decides, or what the kernel has dropped by then, does not fail in every try.
    outcomes = []
    while "model" not in outcomes and len(outcomes) < planted.ATTEMPTS:
        outcomes.append(rounds.play(place, *rounds.read_script(path)).outcome)
    check("model" in outcomes, "the script with the bug: %s" % outcomes)
    equal(rounds.play(place_of(t), *rounds.read_script(path)).outcome, "ok", "the script without it")
