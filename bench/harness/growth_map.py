# SPDX-License-Identifier: Apache-2.0
"""Rows of the scenario growth: maps, the table of files, fills."""

ROWS = []
