"""The stages, a room each (docs/design.md); and what Ray reads from the environment when a stage imports it."""

import os

os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")  # the bars are those of pipelines.progress
# As many actors as CPUs is what we ask for; on a small machine Ray warns of it, on standard output among the results.
os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", "worker processes have been started on node")
