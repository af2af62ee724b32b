"""Which item feature tells best what kind of thing an item is: what lists are varied and reported by."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pipelines.dataset.dataset import FeatureInfo

CATEGORICAL = ("categorical", "multi")
TELLING = 100  # values of a feature that both tells items apart and is shared by many of them


def telling_feature(infos: Sequence[FeatureInfo]) -> str | None:
    """Choose the categorical item feature whose number of values is nearest to TELLING, in ratio; None without any."""
    features = [info for info in infos if info.kind in CATEGORICAL]
    nearest = min(features, key=lambda info: abs(math.log(max(1, info.size) / TELLING)), default=None)
    return None if nearest is None else nearest.name
