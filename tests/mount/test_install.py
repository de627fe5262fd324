# SPDX-License-Identifier: Apache-2.0
"""What `cmake --install` puts where, and what the completions of shells offer; no mount is needed."""

import os
import re

from harness import ROOT, check, equal, read_file, test

SHELL = """. "$1"
COMP_LINE=$2 COMP_POINT=${#2} COMP_WORDS=() COMP_CWORD=0
"_${2%% *}"
printf '%s\\n' "${COMPREPLY[@]}"
"""


def installed(t):
    """The files that an installation consists of, below the prefix /usr."""
    root = t.path("root")
    t.run(["cmake", "--install", t.build, "--prefix", "/usr"], env=dict(os.environ, DESTDIR=root))
    return root, sorted(os.path.relpath(os.path.join(place, name), root)
                        for place, _, names in os.walk(root) for name in names)


def static_libfuse(t):
    """Whether this build has libfuse within the program, whose licence then comes along."""
    cache = read_file(os.path.join(t.build, "CMakeCache.txt")).decode()
    return bool(re.search(r"^FUSE3_STATIC:FILEPATH=/", cache, re.M))


@test(transports="none", presets=("release",))
def files(t):
    """The list of files is the one of docs/installing.md, and nothing else is installed."""
    text = read_file(os.path.join(ROOT, "docs", "installing.md")).decode()
    listed = re.findall(r"^\| `([^`]+)` \|", text, re.M)
    _, found = installed(t)
    documents = "usr/share/doc/foldfs/docs/"
    equal({os.path.relpath(path, documents) for path in found if path.startswith(documents)},
          {os.path.relpath(os.path.join(place, name), os.path.join(ROOT, "docs"))
           for place, _, names in os.walk(os.path.join(ROOT, "docs")) for name in names
           if not place.endswith("/results") and not name.endswith(".dot")}, "documents")
    expected = {path for path in listed if not path.endswith("/") and not path.startswith("/")}
    if not static_libfuse(t):
        expected.discard("share/doc/foldfs/LGPL-2.1")
    equal({path.removeprefix("usr/") for path in found if not path.startswith(documents)}, expected, "files")


@test(transports="none", presets=("release",))
def unit(t):
    """The unit that is installed starts the program, hears of a worker that is ready, and has the keeper end last."""
    root, _ = installed(t)
    text = read_file(os.path.join(root, "usr/lib/systemd/system/foldfs@.service")).decode()
    check(re.search(r"^ExecStart=/\S+/bin/foldfs -f ", text, re.M), text)
    for line in ("Type=notify", "NotifyAccess=all", "KillMode=mixed"):
        check("\n%s\n" % line in text, "the unit has no line " + line)


def completed(t, line):
    result = t.run(["bash", "-c", SHELL, "bash", os.path.join(t.build, "packaging", "foldfs.bash"), line])
    equal(result.stderr, "", "what bash says of: " + line)
    return result.stdout.split("\n")[:-1]


@test(transports="none", presets=("release",))
def completion(t):
    """Every command, option and word is offered, and the programs take what is offered."""
    usage = t.run(t.foldctl_command() + ["--help"]).stdout
    commands = completed(t, "foldctl ")
    equal(commands, re.findall(r"^       foldctl ([a-z]+)", usage, re.M), "commands")
    for command in commands:
        for option in completed(t, "foldctl %s -" % command):
            result = t.run(t.foldctl_command() + [command, option + ("1" if option.endswith("=") else ""), "/", "/", "/"],
                           status=None)
            check("unknown option" not in result.stderr, "%s does not take %s" % (command, option))
    for option in completed(t, "foldfs --estimate -"):
        result = t.run(t.foldfs_command() + ["--estimate", option + ("1" if option.endswith("=") else ""), "/no", "/no"],
                       status=None)
        check("unknown option" not in result.stderr, "--estimate does not take " + option)
    words = completed(t, "foldfs /a /b -o ")
    for word in words:
        value = word + ("1" if word.endswith("=") else "")
        result = t.run(t.foldfs_command() + ["/no/such/source", "/no/such/point", "-o", value], status=1)
        check("unknown option" not in result.stderr and "is not one of" not in result.stderr,
              "foldfs does not take %s: %s" % (value, result.stderr))
    check(set(completed(t, "foldctl set / ")) < set(words), "set takes other words than the command line")


@test(transports="none", presets=("release",))
def completion_in_the_middle(t):
    """A list with commas, a value, a path and a mount point are completed from where the cursor is."""
    os.makedirs(t.path("images", "below"))
    equal(completed(t, "foldfs a b -o pool=8G,tran"),
          ["8G,transport=auto", "8G,transport=io_uring", "8G,transport=dev"], "the second word of a list")
    equal(completed(t, "foldfs a b -osurvive=of"), ["off"], "a value, where bash begins a word")
    equal(completed(t, "foldfs %s/im" % t.path()), [t.path("images")], "a directory")
    equal(completed(t, "foldctl --control=/run aud"), ["audit"], "a command behind --control")
    equal(completed(t, "foldctl scan --state=%s/im" % t.path()), [t.path("images")], "the value of an option")
    mount = t.mount(t.make_dir("source"), name="point of mount")
    equal(completed(t, "foldctl status " + mount.point[:-len(" of mount")]), [mount.point], "a mount point")
