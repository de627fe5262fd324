# SPDX-License-Identifier: Apache-2.0
"""Time limits that a machine which stands still does not use up."""

import subprocess
import time


class Limit:
    """A time limit that is asked again and again whether it has passed. Where nobody asked for longer than
    STANDSTILL, the machine stood still (a virtual one whose host suspends it does so for a minute and
    more), and that counts for no more."""

    STANDSTILL = 2

    def __init__(self, seconds):
        self.left = seconds
        self.asked = time.monotonic()

    def passed(self):
        now = time.monotonic()
        self.left -= min(now - self.asked, self.STANDSTILL)
        self.asked = now
        return self.left < 0


def communicate(process, seconds):
    """As Popen.communicate(), within a Limit."""
    limit = Limit(seconds)
    while True:
        try:
            return process.communicate(timeout=1)
        except subprocess.TimeoutExpired:
            if limit.passed():
                raise
