"""A training checkpoint: model, optimisers and the early-stopping counter, as safetensors and JSON (no pickle)."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from mind_core.model import MIND
from mind_core.training import Trainer


@dataclass
class EarlyStopping:
    """Counts validations without a better metric.

    best : the best value so far.  stale : validations since then.
    """

    patience: int | None
    best: float = float("-inf")
    stale: int = 0

    def update(self, value: float) -> None:
        """Take in one validation."""
        self.stale = 0 if value > self.best else self.stale + 1
        self.best = max(self.best, value)

    def should_stop(self) -> bool:
        """Whether `patience` validations in a row were no better."""
        return self.patience is not None and self.stale >= self.patience


def save_checkpoint(folder: Path, trainer: Trainer, stopping: EarlyStopping) -> None:
    """Write everything that the run needs to go on exactly as if it had not stopped."""
    _save(trainer.model.state_dict(), folder / "model.safetensors")
    _save(trainer.state_dict(), folder / "optimizer.safetensors")
    (folder / "progress.json").write_text(json.dumps(asdict(stopping)), "utf-8")


def load_checkpoint(folder: Path, trainer: Trainer, stopping: EarlyStopping) -> None:
    """Restore in place what `save_checkpoint` wrote."""
    load_weights(folder, trainer.model)
    trainer.load_state_dict(load_file(folder / "optimizer.safetensors", device=str(trainer.device)))
    saved = json.loads((folder / "progress.json").read_text("utf-8"))
    stopping.best, stopping.stale = saved["best"], saved["stale"]


def load_weights(folder: Path, model: MIND) -> None:
    """Restore only the model."""
    model.load_state_dict(load_file(folder / "model.safetensors"))


def _save(tensors: dict[str, torch.Tensor], path: Path) -> None:
    save_file({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, path)
