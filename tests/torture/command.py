# SPDX-License-Identifier: Apache-2.0
"""The command line of tests/torture/run."""

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time

import harness
import planted
import rounds
import runner
import shrink

SUMS = ("operations", "bytes_read", "bytes_written", "pages_read_beside_changes", "pages_outrun", "refused",
        "bytes_kept", "replaced")
STATUS_SUMS = ("breaks", "merges", "evictions", "fills_discarded", "hits", "misses", "bypassed")


def parse_arguments():
    parser = argparse.ArgumentParser(prog="tests/torture/run", description=(
        "Random operations on real mounts against a shadow model (as root); README.md says more."))
    parser.add_argument("--preset", default="release",
                        help="build to torture: release, debug, asan, tsan or digest8")
    parser.add_argument("--build", help="directory of foldfs and foldctl")
    parser.add_argument("--seed", type=int, help="of the first round; the next rounds' seeds follow it")
    parser.add_argument("--seconds", type=float, default=0, help="play rounds for that long")
    parser.add_argument("--rounds", type=int, default=0, help="play that many (default: 1)")
    parser.add_argument("--operations", type=int, help="in a round, of all its workers together")
    parser.add_argument("--transport", default="both", choices=("dev", "io_uring", "both"))
    parser.add_argument("--options", default="", help="mount options for every round: pool=1M,window=0")
    parser.add_argument("--kind", choices=list(rounds.KINDS), help="of every round")
    parser.add_argument("--processes", type=int)
    parser.add_argument("--threads", type=int, help="of each process; one of each is deterministic")
    parser.add_argument("--files", type=int)
    parser.add_argument("--replay", metavar="FILE", help="play a script")
    parser.add_argument("--planted", metavar="NAME", help="find a planted bug, or all of them")
    parser.add_argument("--shrink-seconds", type=float, default=90, help="0: do not shrink a failure")
    parser.add_argument("--script", metavar="FILE",
                        help="where a failure's script goes (default: ./torture-SEED.script)")
    parser.add_argument("--json", action="store_true", help="the result as one JSON object")
    return parser.parse_args()


class Say:
    """Progress for people: to stderr, so that --json has stdout to itself."""

    def __init__(self, quiet):
        self.file = sys.stderr if quiet else sys.stdout

    def __call__(self, text):
        print(text, file=self.file, flush=True)


def overrides_of(arguments):
    overrides = {name: getattr(arguments, name) for name in ("kind", "processes", "threads", "files")
                 if getattr(arguments, name)}
    if arguments.options:
        words = arguments.options.split(",")
        several = [word for word in words if "=" not in word or word.startswith("passthrough=")]
        overrides["options"] = dict(word.split("=", 1) for word in words if word not in several)
        overrides["words"] = several
    return overrides


def describe(config):
    return "%s, seed %d, %s, %s, %d x %d workers, %d files%s" % (
        config["kind"], config["seed"], config["transport"],
        ",".join(["%s=%s" % item for item in sorted(config["options"].items())] + config["words"]),
        config["processes"], config["threads"], config["files"],
        ", changes behind the mount" if config["behind"] and config["kind"] == "pages" else "")


def again(place, config):
    """The command that plays the same round."""
    workers = config["processes"] * config["threads"]
    options = ["%s=%s" % item for item in sorted(config["options"].items())] + config["words"]
    command = "tests/torture/run --preset %s --transport %s --seed %d --operations %d --options %s" % (
        place.preset, config["transport"], config["seed"], config["operations"] * workers, ",".join(options))
    for name in ("kind", "processes", "threads", "files"):
        command += " --%s %s" % (name, config[name])
    return command + ("" if workers == 1 else " (the same operations; when threads meet is not repeated)")


class Totals:
    def __init__(self, seed):
        self.values = {"seed": seed, "rounds": 0, "outcome": "ok", "seconds": 0.0}
        self.values.update(dict.fromkeys(SUMS + STATUS_SUMS, 0))

    def add(self, result):
        self.values["rounds"] += 1
        for name in SUMS:
            self.values[name] += result.figures.get(name, 0)
        for name in STATUS_SUMS:
            self.values[name] += result.status.get(name, 0)

    def line(self):
        return ("{rounds} rounds, {operations} operations, {bytes_read} bytes read and compared, "
                "{bytes_written} written, {breaks} breaks, {merges} merges, {evictions} evictions, "
                "{fills_discarded} stale fills caught, {seconds:.0f} s").format(**self.values)


def explain(place, arguments, result, say):
    """Print a failure, shrink it, and write the script."""
    say("FAILED (%s): %s" % (result.outcome, result.text))
    say("the round: " + describe(result.config))
    say("again: " + again(place, result.config))
    if not result.script:
        return None
    path = os.path.abspath(arguments.script or "torture-%d.script" % result.config["seed"])
    lines, serial, text = result.script, False, result.text
    if arguments.shrink_seconds > 0:
        say("shrinking %d operations, for at most %g s" % (len(lines), arguments.shrink_seconds))
        shrinker = shrink.Shrinker(place, result, arguments.shrink_seconds, say)
        shorter = shrinker.shrink(lines)
        if shorter is None:
            say("it did not fail again: the script has all that ran")
        else:
            lines, serial, text = shorter, shrinker.serial, shrinker.text
            say("%d operations remain, played %s:" % (
                len(lines), "by one thread" if serial else "side by side"))
            say("".join(lines[:40]).rstrip())
    rounds.write_script(path, result.config, lines, serial, text)
    say("tests/torture/run --preset %s --replay %s" % (place.preset, path))
    return path


def torture(place, arguments, seed, transports, say):
    totals = Totals(seed)
    start = time.monotonic()
    end = start + arguments.seconds
    wanted = arguments.rounds or (0 if arguments.seconds else 1)
    while totals.values["rounds"] < wanted or (not wanted and time.monotonic() < end):
        config = rounds.random_config(seed + totals.values["rounds"], transports, arguments.operations,
                                      overrides_of(arguments))
        left = end - time.monotonic() if arguments.seconds else 0
        result = rounds.play(place, config, seconds=max(1, left) if arguments.seconds else 0)
        totals.add(result)
        if result.outcome != "ok":
            totals.values.update(outcome=result.outcome, failure=result.text, config=config)
            totals.values["script"] = explain(place, arguments, result, say)
            break
        say("ok: %s: %d operations" % (describe(config), result.operations))
        if arguments.seconds and time.monotonic() > end:
            break
    totals.values["seconds"] = round(time.monotonic() - start, 1)
    if arguments.json:
        print(json.dumps(totals.values))
    else:
        say(totals.line())
    return 0 if totals.values["outcome"] == "ok" else 1


def replay(place, arguments, say):
    config, lines, serial = rounds.read_script(arguments.replay)
    result = rounds.play(place, config, lines, serial)
    if arguments.json:
        print(json.dumps({"outcome": result.outcome, "failure": result.text, **result.figures}))
    elif result.outcome == "ok":
        say("ok: %d operations" % result.operations)
    else:
        say("FAILED (%s): %s" % (result.outcome, result.text))
    return 0 if result.outcome == "ok" else 1


def find_planted(place, arguments, seed, transports, say):
    names = list(planted.BUGS) if arguments.planted == "all" else [arguments.planted]
    if set(names) - set(planted.BUGS):
        sys.exit("no such bug; there are: " + " ".join(planted.BUGS))
    if set(planted.names_of(place.build)) != set(planted.BUGS) | set(planted.ELSEWHERE):
        sys.exit("planted.c and planted.py do not have the same bugs")
    found = []
    wrong = planted.is_healthy(place.preset, place.build, place.base, seed, transports)
    if wrong:
        say("foldfs-planted without a bug: " + wrong)
    for name in names:
        found.append(planted.find(place.preset, place.build, place.base, name, seed, transports))
        say(found[-1].line())
    missing = [one.name for one in found if not one.how]
    say("%d of %d found" % (len(found) - len(missing), len(found)))
    if arguments.json:
        print(json.dumps([vars(one) for one in found]))
    return 1 if missing or wrong else 0


def main():
    arguments = parse_arguments()
    # As after ^C: the round's mount and processes go first.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    say = Say(arguments.json)
    build = os.path.abspath(arguments.build or os.path.join(harness.ROOT, "build", arguments.preset))
    for program in ("foldfs", "foldctl", "tests/torture/foldfs-torture", "tests/torture/foldfs-whole"):
        if not os.access(os.path.join(build, program), os.X_OK):
            sys.exit("%s/%s is not built" % (build, program))
    runner.prepare()
    transports = runner.transports_of(arguments, lambda text: say("note: " + text))
    if not transports:
        sys.exit("that transport is not to be had here")
    seed = arguments.seed if arguments.seed is not None else random.SystemRandom().randrange(1 << 31)
    base = tempfile.mkdtemp(prefix="foldfs-torture.", dir=os.environ.get("FOLDFS_TEST_DIR", "/var/tmp"))
    os.chmod(base, 0o755)
    place = rounds.Place(arguments.preset, build, base)
    try:
        if arguments.replay:
            return replay(place, arguments, say)
        say("foldfs of %s, seed %d" % (arguments.preset, seed))
        if arguments.planted:
            return find_planted(place, arguments, seed, transports, say)
        return torture(place, arguments, seed, transports, say)
    finally:
        shutil.rmtree(base, ignore_errors=True)
