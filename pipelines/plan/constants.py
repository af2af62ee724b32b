"""Sizes that are written in the code, repeated here so that planning imports neither torch nor Ray.

tests/pipelines/plan/test_constants.py compares them.
"""

from __future__ import annotations

BUCKETS = 1024  # pipelines.preprocess.buckets: parts of a dataset, at most
EVENTS_PER_PART = 2**19  # pipelines.preprocess.sort_parts
BLOCK_ROWS = 2**20  # pipelines.log.formats: rows of Parquet that a reading task takes at a time
EXCHANGED_AT_ONCE = 64 * 2**20  # pipelines.preprocess.exchange: bytes that a task of the exchange takes in
COUNTS_HELD = 8  # pipelines.preprocess.core_items.total: item counts of so many parts are added at a time
TILE_USERS = 128  # mind_core.inference: users ranked at a time
SEARCH_SCORES, SEARCH_EXACT = 2**20, 2**22  # mind_core.search: products of a block, numbers summed in order
TILE_SCORES = 2**20  # mind_core.loss: scores computed at a time
FACTOR_PASSES, FACTOR_SPARE = 7, 16  # mind_core.factors: products with X^T X, directions beyond d
REPORT_EVERY_STEPS = 50  # pipelines.training.worker
REPEATS_BYTES = 20  # pipelines.training.memory_input, where a model asks for traits
LABEL_BYTES = 22  # pipelines.training.memory_input, where times say which events are labels
EVENT_BYTES, USER_BYTES, PROFILE_BYTES = 14, 24, 20  # pipelines.training.memory_input, of a train split held in memory
MEMORY_SHARE = 0.5  # pipelines.training.memory_input: of a worker's part of its node, for that split
