"""One training step: draw -> gather distinct rows -> forward and backward on the block -> exchange -> update rows.

Data-parallel by design: dense parameters go through DistributedDataParallel, table rows through `exchange_rows`. Every
random draw comes from a generator seeded by (seed, purpose, step) and, where ranks must differ, the rank: a resumed run
draws what the uninterrupted one would have drawn, and there is no random state to save.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel

from mind_core.config import OptimConfig
from mind_core.distributed import exchange_rows, send_to_owners, world_size
from mind_core.embeddings import EmbeddingTable, Gathered, RowBlock, gather, gather_rows
from mind_core.features import Bags
from mind_core.loss import OwnItems, label_attention_vector, own_vectors, sampled_softmax_loss
from mind_core.model import MIND
from mind_core.negatives import NegativeSampler
from mind_core.optim import RowAdagrad, RowAdam, RowOptimizer, clip_factor
from mind_core.profiling import StepTimes
from mind_core.routing import SHORTEST, products
from mind_core.sequences import Histories, Packed, Samples, Sequences, ends_before, hide_behaviours, packed, windows


def seeded(device: torch.device | str, *key: object) -> torch.Generator:
    """A generator whose stream is fixed by `key`, e.g. (seed, "dropout", step, rank)."""
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest, "big") >> 1)


def learning_rate_factor(step: int, total_steps: int, config: OptimConfig) -> float:
    """Multiplier of the peak rate at `step` (0-based): linear warm-up, then constant or decay to 0 at `total_steps`."""
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    if config.schedule == "constant":
        return 1.0
    done = min(1.0, (step - config.warmup_steps) / max(1, total_steps - config.warmup_steps))
    return 1 - done if config.schedule == "linear" else 0.5 * (1 + math.cos(math.pi * done))


@dataclass(frozen=True)
class StepBatch:
    """A batch over distinct items: `history` (W, L), `label` (B,), `negatives` (N,) index into `items` (U,).

    B = W, or B = W * P with P labels in each window, of which only those of `real` count.
    """

    items: Tensor
    history: Tensor
    label: Tensor
    negatives: Tensor
    mask: Tensor  # (B, L) bool
    log_expected: Tensor  # (U,) log expected count of each distinct item among the negatives
    logits: Tensor | None  # (B, K, L) resampled routing logits
    own: Tensor | None  # (B, L) bool, which behaviours stand for an item of the user's own; None with repeat: none
    traits: Tensor | None  # (B, L, T) of the behaviours' items
    real: Tensor | None = None  # (B,) bool; None: all


class Objective(nn.Module):
    """The loss as a module over gathered rows, so that DDP can wrap it and sees only dense parameters."""

    def __init__(self, model: MIND, scoring: str):
        super().__init__()
        self.encoder, self.scoring = model.encoder, scoring
        self._model = [model]  # in a list: the tables are not this module's parameters, DDP must not broadcast them

    def forward(self, batch: StepBatch, items: Gathered, profile: Gathered | None) -> Tensor:
        """Mean loss of the batch, a scalar."""
        model = self._model[0]
        distinct = items.pooled(items.block.values)  # (U, d), e_i of the step's distinct items
        # functional.embedding, not distinct[index]: its backward sums in a fixed order, with any number of threads
        behaviours = functional.embedding(batch.history, distinct)  # (B, L, d)
        profiles = None
        if profile is not None:
            profiles = profile.pooled(profile.block.values).view(len(batch.history), -1)  # (W, F * profile_dim)
        interests, own, _ = self.encoder(behaviours, batch.mask, profiles, batch.logits, batch.traits)
        scored = model.score_vectors(distinct)
        label = functional.embedding(batch.label, scored)  # (B, d)
        negatives = functional.embedding(batch.negatives, scored)  # (N, d)
        config = model.config
        if self.scoring == "best_match":
            vectors = own_vectors(interests, own)
        else:
            power, normalize = config.attention_power, config.normalize_interests
            vectors = label_attention_vector(interests, own, label, power, normalize)
        own_ids = self._own_ids(batch)
        remembered = self._remembered(own_ids, batch, distinct, behaviours, vectors)
        ids = batch.items[batch.label]
        if batch.real is not None:
            kept = batch.real.nonzero().squeeze(1)
            vectors, label, ids = vectors[kept], label[kept], ids[kept]
            own_ids = None if own_ids is None else own_ids[kept]
            remembered = None if remembered is None else remembered.rows(kept)
        return sampled_softmax_loss(
            vectors,
            label,
            negatives,
            ids,
            batch.items[batch.negatives],
            batch.log_expected[batch.negatives],
            config.temperature,
            remembered,
            own_ids if config.repeat == "never" else None,
        )

    def _own_ids(self, batch: StepBatch) -> Tensor | None:
        """(B, L) the items of the users' own, also those that dropout hides from the encoder; 0 where there is none."""
        if batch.own is None:
            return None
        labels = len(batch.label) // len(batch.history)
        return batch.items[batch.history].repeat_interleave(labels, 0).masked_fill(~batch.own, 0)

    def _remembered(
        self, ids: Tensor | None, batch: StepBatch, distinct: Tensor, behaviours: Tensor, vectors: Tensor
    ) -> OwnItems | None:
        """Score the users' own items. What is an item's alone, its norm and its part of the memory, is computed for the
        step's distinct items (U, d), once each: behaviours are ten times as many."""
        config = self._model[0].config
        if ids is None or batch.traits is None or config.repeat != "memory":
            return None
        memory = self.encoder.memory
        scores = products(vectors, behaviours).amax(1)  # (B, L)
        of_items = [memory.of_items(distinct)]
        if config.normalize_items:
            of_items.append(1 / torch.linalg.vector_norm(distinct, dim=-1).clamp(min=SHORTEST))
        each = functional.embedding(batch.history, torch.stack(of_items, 1))  # (W, L, 1 or 2)
        if config.normalize_items:
            scores = scores * each[..., 1].repeat_interleave(len(scores) // len(each), 0)
        return OwnItems(ids, scores, memory(each[..., 0], batch.traits, scores))


class Trainer:
    """Owns the model's optimisers and runs steps; knows nothing of epochs, files or Ray.

    Parameters
    ----------
    model : on its device; with several ranks, built from the same seed on each.
    item_bags : which table rows make up each item index, on the same device.
    sampler : of the shared negatives, on the same device.
    total_steps : of the whole run, for the learning-rate schedule.
    labels_per_window : of the window that ends before each sample, so many labels are drawn; None: the sample is one.
    horizon : a label is one of the next so many events after the history.
    times : filled by every step, if given.
    """

    def __init__(
        self,
        model: MIND,
        item_bags: Bags,
        sampler: NegativeSampler,
        optim: OptimConfig,
        *,
        total_steps: int,
        seed: int = 0,
        behaviour_dropout: float = 0.0,
        labels_per_window: int | None = None,
        horizon: int = 1,
        autocast: bool = False,
        times: StepTimes | None = None,
    ):
        self.model, self.item_bags, self.sampler, self.optim = model, item_bags, sampler, optim
        self.times = times
        self.total_steps, self.seed = total_steps, seed
        self.behaviour_dropout, self.autocast = behaviour_dropout, autocast
        self.labels_per_window, self.horizon = labels_per_window, horizon
        self.device = model.item_table.weight.device
        self.rank = dist.get_rank() if world_size() > 1 else 0
        if sampler.config.kind == "full" and model.item_table.shard.ranks > 1:
            raise ValueError("kind: full scores every item in each step, which a sharded table cannot")
        self.objective: nn.Module = Objective(model, sampler.config.scoring)
        if world_size() > 1:
            self.objective = DistributedDataParallel(self.objective)
        decay = optim.weight_decay
        self.dense = torch.optim.AdamW(model.encoder.parameters(), lr=optim.learning_rate, weight_decay=decay)
        make: type[RowAdam] | type[RowAdagrad] = RowAdam if optim.table_optimizer == "adam" else RowAdagrad
        self.rows: dict[str, RowOptimizer] = {
            name: make(table.weight, decay)
            for name, table in (("items", model.item_table), ("profile", model.profile_table))
        }
        self.step = 0
        self.rate_factor = 1.0  # of both rates, beside the schedule's: halved where a training was taken back

    def train_step(self, sequences: Sequences, samples: Samples, weight: float = 1.0) -> Tensor:
        """Run one step on this rank's `samples`, at least one.

        Parameters
        ----------
        weight : of this rank's mean loss in the mean over ranks, for ranks whose numbers of samples differ: own number
            * ranks / all ranks' number. A rank of weight 0 takes part in the exchange and adds nothing.

        Returns
        -------
        The rank's mean loss (a scalar, detached, still on the device).
        """
        with self._phase("draw"):
            batch, profile_rows = self._draw(sequences, samples)
        with self._phase("gather"):
            items = self._gather_items(batch.items)
            profile = gather(self.model.profile_table, profile_rows) if profile_rows is not None else None
        with self._phase("forward"), self._autocast(), self._dropout():
            loss: Tensor = self.objective(batch, items, profile)
        with self._phase("backward"):
            self.dense.zero_grad(set_to_none=True)
            (loss if weight == 1 else weight * loss).backward()
        factor = self.rate_factor * learning_rate_factor(self.step, self.total_steps, self.optim)
        with self._phase("update"):
            rows = {"items": self._exchanged(self.model.item_table, items.block, weight)}
            if profile is not None:
                rows["profile"] = self._exchanged(self.model.profile_table, profile.block, weight)
            self._clip(rows)
            for group in self.dense.param_groups:
                group["lr"] = factor * self.optim.learning_rate
            self.dense.step()
            for name, table in (("items", self.model.item_table), ("profile", self.model.profile_table)):
                if name in rows:
                    self.rows[name].update(table.weight, *rows[name], factor * self.optim.table_learning_rate)
        self.step += 1
        if self.times is not None:
            self.times.steps += 1
        return loss.detach()

    def _phase(self, name: str) -> AbstractContextManager[None]:
        return nullcontext() if self.times is None else self.times.phase(name)

    @contextmanager
    def _dropout(self) -> Iterator[None]:
        """Draw the context encoder's dropout by (seed, step, rank), whatever was drawn before."""
        config = self.model.config
        if config.context == "none" or config.context_dropout == 0:
            yield
            return
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(seeded("cpu", self.seed, "context dropout", self.step, self.rank).initial_seed())
            yield

    def _autocast(self) -> AbstractContextManager[object]:
        return torch.autocast(self.device.type, torch.bfloat16) if self.autocast else nullcontext()

    def _draw(self, sequences: Sequences, samples: Samples) -> tuple[StepBatch, Bags | None]:
        model, config = self.model, self.model.config
        seen: Histories | Packed
        generator = seeded(self.device, self.seed, "labels", self.step, self.rank)
        if self.labels_per_window is None:
            ends = ends_before(sequences, samples.users, samples.positions, self.horizon, generator)
            seen, positions, real = windows(sequences, samples.users, ends, model.view), samples.positions, None
        else:
            seen = packed(sequences, samples, model.view, self.labels_per_window, generator, self.horizon)
            positions, real = seen.positions, seen.real
        labels = sequences.items[positions].long()
        # the same draw on every rank, as if one worker had taken the whole batch: fewer rows to exchange and to update
        counted = labels if real is None else labels[real]
        negatives = self.sampler.draw(counted, seeded(self.device, self.seed, "negatives", self.step))
        mask = seen.mask
        if self.behaviour_dropout:
            generator = seeded(self.device, self.seed, "dropout", self.step, self.rank)
            mask = hide_behaviours(mask, self.behaviour_dropout, generator)
        logits = None
        if config.encoder == "mind" and config.resample_logits:
            shape = (len(labels), config.interests, mask.shape[1])
            generator = seeded(self.device, self.seed, "logits", self.step, self.rank)
            logits = config.sigma * torch.randn(shape, generator=generator, device=self.device)
        ids = torch.cat([seen.items.flatten(), labels, negatives])
        if self.sampler.config.kind == "full":
            distinct, index = torch.arange(model.items, device=self.device), ids  # every item takes part
        else:
            distinct, index = ids.unique(return_inverse=True)
        history, label, negative = index.split([seen.items.numel(), len(labels), len(negatives)])
        log_expected = self.sampler.log_expected_count(distinct, len(counted))
        batch = StepBatch(
            distinct,
            history.view(seen.items.shape),
            label,
            negative,
            mask,
            log_expected,
            logits,
            {"none": None, "never": seen.mask, "memory": seen.newest}[config.repeat],
            seen.traits,
            real,
        )
        return batch, seen.profile

    def _gather_items(self, items: Tensor) -> Gathered:
        table = self.model.item_table
        if len(items) == self.model.items:
            block = RowBlock(torch.arange(len(table.weight), device=self.device), table.weight.clone().requires_grad_())
            return Gathered(block, self.item_bags.rows, self.item_bags)
        if not self.model.item_features:
            return gather_rows(table, items)  # an item is its own row
        return gather(table, self.item_bags.select(items))

    def _exchanged(self, table: EmbeddingTable, block: RowBlock, weight: float) -> tuple[Tensor, Tensor]:
        """Average the gradients of a step's rows over the ranks: (R,) rows that are updated here, and (R, d)."""
        assert block.values.grad is not None
        first = int(len(block.rows) > 0 and block.rows[0] == 0)  # sorted: only the first can be padding
        used = slice(first, None if weight else first)
        exchange = exchange_rows if table.shard.ranks == 1 else send_to_owners
        with self._phase("exchange"):
            return exchange(block.rows[used], block.values.grad[used])

    def _clip(self, rows: dict[str, tuple[Tensor, Tensor]]) -> None:
        """Scale all gradients of the step, dense and rows together, to `clip_norm` at most."""
        if self.optim.clip_norm is None:
            return
        dense = [each.grad for each in self.model.encoder.parameters() if each.grad is not None]
        sharded = [rows["items"][1]] if self.model.item_table.shard.ranks > 1 else []
        alike = [grad for name, (_, grad) in rows.items() if name != "items" or not sharded]
        factor = clip_factor([*dense, *alike], sharded, self.optim.clip_norm)
        for grad in (*dense, *alike, *sharded):
            grad.mul_(factor)

    def state_dict(self) -> dict[str, Tensor]:
        """Optimiser state as flat tensors (no pickle): dense Adam's moments, the rows' state, the step."""
        state = {"step": torch.tensor(self.step), "rate_factor": torch.tensor(self.rate_factor, dtype=torch.float64)}
        for index, moments in self.dense.state_dict()["state"].items():
            state |= {f"dense.{index}.{name}": value for name, value in moments.items()}
        for table, optimizer in self.rows.items():
            state |= {f"rows.{table}.{name}": value for name, value in optimizer.state_dict().items()}
        return state

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.step = int(state["step"])
        self.rate_factor = float(state["rate_factor"]) if "rate_factor" in state else 1.0
        dense = self.dense.state_dict()
        dense["state"] = {}
        for key, value in state.items():
            if key.startswith("dense."):
                _, index, name = key.split(".")
                dense["state"].setdefault(int(index), {})[name] = value
        self.dense.load_state_dict(dense)
        for table, optimizer in self.rows.items():
            prefix = f"rows.{table}."
            optimizer.load_state_dict({k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)})
