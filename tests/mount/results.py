# SPDX-License-Identifier: Apache-2.0
"""What a long run has to tell beside passed and failed: one line of JSON for each test, for tests/crash/run."""

import json
import os

FILE = os.environ.get("FOLDFS_CRASH_RESULTS")


def record_result(t, **figures):
    """Into the file that tests/crash/run reads; nowhere if nobody asked."""
    if FILE:
        line = json.dumps({"test": t.identity, "transport": t.transport, **figures}) + "\n"
        with open(FILE, "a", encoding="utf-8") as file:
            file.write(line)
