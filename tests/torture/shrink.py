# SPDX-License-Identifier: Apache-2.0
"""Makes a failing list of operations short: delta debugging ("Simplifying and isolating failure-inducing
input", TSE 2002), each try on a fresh mount, bounded in time.

A list that fails when one thread plays it, in the order in which it ran, holds no race: that is tried
first. Else the workers play it side by side as they did, and a try counts as failed only after a few
attempts without a failure; how good that is, the race decides.
"""

import re
import time

import rounds

ATTEMPTS = 3  # of a list with a race


class Shrinker:
    def __init__(self, place, result, seconds, say, tries=None):
        self.place = place
        self.config = result.config
        self.outcome = result.outcome
        self.text = result.text
        self.end = time.monotonic() + seconds
        self.say = say
        self.serial = True
        self.tries = 0
        self.tries_max = tries

    def is_late(self):
        return time.monotonic() > self.end or self.tries_max and self.tries >= self.tries_max

    def fails(self, lines):
        """Whether these lines still show a failure of the kind."""
        for _ in range(1 if self.serial else ATTEMPTS):
            if self.is_late():
                return False
            self.tries += 1
            found = rounds.play(self.place, self.config, lines, self.serial)
            if found.outcome == self.outcome:
                self.text = found.text
                return True
        return False

    def shrink(self, lines):
        """The shortest list found; None: it did not fail again at all."""
        if not self.fails(lines):
            self.serial = False
            if not self.fails(lines):
                return None
        lines = self.without_other_files(lines)
        size = max(1, len(lines) // 2)
        while not self.is_late():
            shorter = self.without_parts(lines, size)
            if size == 1 and len(shorter) == len(lines):
                break
            lines = shorter
            size = max(1, min(size // 2, len(lines) // 2))
            self.say("%d operations after %d tries" % (len(lines), self.tries))
        return lines

    def without_other_files(self, lines):
        """Only what touches the file that failed, if that is enough."""
        named = re.search(r"\bfile (\d+)", self.text)
        if not named:
            return lines
        mine = [line for line in lines if "file=%s " % named.group(1) in line]
        return mine if mine and self.fails(mine) else lines

    def without_parts(self, lines, size):
        """Leave out each part of that size that is not needed, the last ones first."""
        at = len(lines)
        while at > 0 and not self.is_late():
            start = max(0, at - size)
            shorter = lines[:start] + lines[at:]
            if shorter and self.fails(shorter):
                lines = shorter
            at = start
        return lines
