"""A short text for many values: to name what they shape, and to see that they are still the same."""

from __future__ import annotations

import hashlib
import json
from typing import Any


def key_digest(key: Any, size: int) -> str:
    """Hex digits, two for each of `size` bytes, of a key that can be JSON, in whatever order it has its members."""
    return hashlib.blake2b(json.dumps(key, sort_keys=True, default=str).encode(), digest_size=size).hexdigest()
