"""The numbers that SplitMix64 (Steele, Lea and Flood 2014) multiplies by.

It is computed twice, as neither torch nor NumPy is to be loaded where the other does it: `mind_core.shuffle` draws with
it, `pipelines.log.ids` hashes with it. tests/pipelines/log/test_ids.py holds both against the same published numbers.
"""

from __future__ import annotations

GOLDEN = 0x9E3779B97F4A7C15  # 2^64 over the golden ratio, made odd: its multiples spread evenly
FIRST, SECOND = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
