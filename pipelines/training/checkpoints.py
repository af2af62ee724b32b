"""A training checkpoint: model, optimisers and the early-stopping counter, as safetensors and JSON (no pickle).

The item table and its optimiser's rows lie in items-<rank>-of-<ranks>.safetensors, one file for each rank that owns
some. A run may go on with other shards than it began with: every rank picks its rows from the files.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from mind_core.embeddings import Shard
from mind_core.model import MIND
from mind_core.training import Trainer

ITEM_ROWS = ("item_table.", "rows.items.")  # how the names of sharded tensors begin


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
        """Say whether `patience` validations in a row were no better."""
        return self.patience is not None and self.stale >= self.patience


def save_checkpoint(folder: Path, trainer: Trainer, stopping: EarlyStopping) -> None:
    """Write what this rank has of all that the run needs to go on exactly as if it had not stopped.

    With a sharded table every rank must call it; otherwise rank 0 has all.
    """
    state = trainer.model.state_dict() | trainer.state_dict()
    shard = trainer.model.item_table.shard
    of_items = {name for name in state if name.startswith(ITEM_ROWS)}
    _save({name: state[name] for name in of_items}, folder / _shard_file(shard))
    if trainer.rank == 0:
        of_model = trainer.model.state_dict().keys() - of_items
        _save({name: state[name] for name in of_model}, folder / "model.safetensors")
        _save({name: state[name] for name in state.keys() - of_model - of_items}, folder / "optimizer.safetensors")
        (folder / "progress.json").write_text(json.dumps(asdict(stopping)), "utf-8")


def load_checkpoint(folder: Path, trainer: Trainer, stopping: EarlyStopping) -> None:
    """Restore in place what `save_checkpoint` wrote, on all ranks, with any shards."""
    load_weights(folder, trainer.model)
    rows = _item_rows(folder, "rows.items.", trainer.model.item_table.shard)
    trainer.load_state_dict(load_file(folder / "optimizer.safetensors") | rows)
    saved = json.loads((folder / "progress.json").read_text("utf-8"))
    stopping.best, stopping.stale = saved["best"], saved["stale"]


def load_weights(folder: Path, model: MIND) -> None:
    """Restore only the model, whatever part of the item table it holds."""
    table = _item_rows(folder, "item_table.", model.item_table.shard)
    model.load_state_dict(load_file(folder / "model.safetensors") | table)


def _shard_file(shard: Shard) -> str:
    return f"items-{shard.rank:05d}-of-{shard.ranks:05d}.safetensors"


def _item_rows(folder: Path, prefix: str, shard: Shard) -> dict[str, Tensor]:
    """Read the rows of `shard` of each tensor whose name begins so, from whatever shards were saved."""
    with ExitStack() as stack:
        files = [stack.enter_context(safe_open(path, "pt")) for path in sorted(folder.glob("items-*-of-*"))]
        names = [name for name in files[0].keys() if name.startswith(prefix)]  # noqa: SIM118  # not a mapping
        return {name: _picked(files, name, shard) for name in names}


def _picked(files: Sequence[Any], name: str, shard: Shard) -> Tensor:
    total = sum(file.get_slice(name).get_shape()[0] for file in files)
    rows = torch.arange(shard.rank, total, shard.ranks)
    own: Tensor | None = None
    for number, file in enumerate(files):  # one at a time: together they may not fit
        here = rows % len(files) == number
        if here.any():
            part = file.get_tensor(name)
            own = part.new_empty(len(rows), *part.shape[1:]) if own is None else own
            own[here] = part[rows[here] // len(files)]
    assert own is not None, "every rank owns a row: padding, unknown and the items are more than the ranks"
    return own


def _save(tensors: dict[str, Tensor], path: Path) -> None:
    save_file({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, path)
