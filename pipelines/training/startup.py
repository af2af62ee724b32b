"""How long a training takes to its first step, and what with: marks of the wall clock, set in two processes."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from pipelines.cluster.hand_over import command_began


@dataclass
class Timeline:
    """Named moments since this command began; it pickles, so a worker goes on where the driver stopped."""

    began: float = field(default_factory=command_began)
    moments: list[tuple[str, float]] = field(default_factory=list)

    def mark(self, name: str) -> None:
        """Call what ends now `name`."""
        self.moments.append((name, time.time()))

    def metrics(self) -> dict[str, float]:
        """Return ``startup/<name>``: seconds of each part; ``startup/total``: all of them."""
        starts = [self.began, *(moment for _, moment in self.moments)]
        parts = {f"startup/{name}": end - start for start, (name, end) in zip(starts, self.moments, strict=False)}
        return parts | {"startup/total": starts[-1] - self.began}
