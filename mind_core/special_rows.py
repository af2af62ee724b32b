"""The rows that come before the real ones, of items and of every feature: padding, unknown, missing.

A dataset's files hold these numbers and a model's tables have these rows, so they never change. Needs no torch: whoever
writes a dataset or plans imports them too.
"""

from __future__ import annotations

PADDING = 0  # all zeros, never trained
UNKNOWN = 1  # rare or never seen
FIRST_ITEM = 2  # items have no "missing" row
MISSING = 2  # of a feature's values
FIRST_VALUE = 3  # of a feature
