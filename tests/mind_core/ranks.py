"""What each of two gloo processes does for test_distributed; a module of its own, so that a spawned one can import it.

What a task finds is written as plain tensors; the assertions stand in the tests.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor

from mind_core.config import LossConfig, OptimConfig
from mind_core.distributed import exchange_rows, fetch_rows, from_first_rank, route_rows, sum_over_ranks
from mind_core.embeddings import WHOLE, EmbeddingTable, Shard, pool_all
from mind_core.factors import begin_with_factors
from mind_core.sequences import Samples
from mind_core.training import Trainer
from tests.mind_core.given import World, all_targets, generator, random_sequences, trainer, world

RANKS = 2
STEPS = 30
ITEMS = 40
Found = dict[str, Tensor]


def on_two_ranks(tasks: list[Callable[[int], Found]], folder: Path) -> dict[str, list[Found]]:
    """Run `tasks` one after the other on two processes; by name of the task, what each rank found."""
    mp.spawn(_one_rank, (tasks, str(folder)), nprocs=RANKS)
    return {task.__name__: [torch.load(_file(folder, task, rank)) for rank in range(RANKS)] for task in tasks}


def _one_rank(rank: int, tasks: list[Callable[[int], Found]], folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=RANKS)
    for task in tasks:
        torch.save(task(rank), _file(Path(folder), task, rank))
    dist.barrier()
    dist.destroy_process_group()


def _file(folder: Path, task: Callable[[int], Found], rank: int) -> Path:
    return folder / f"{task.__name__}.{rank}.pt"


def exchanges(rank: int) -> Found:
    """Rows 2, 5 on rank 0 and 5, 9 on rank 1; then rank 1 has none; then nobody has any."""
    rows = torch.tensor([[2, 5], [5, 9]][rank])
    grad = torch.tensor([[[1.0, 2.0], [3.0, 4.0]], [[10.0, 20.0], [30.0, 40.0]]][rank])
    none, no_grad = rows[:0], grad[:0]
    both = exchange_rows(rows, grad)
    one_sided = exchange_rows(rows if rank == 0 else none, grad if rank == 0 else no_grad)
    empty = exchange_rows(none, no_grad)
    return {
        "both.rows": both[0],
        "both.grad": both[1],
        "one_sided.rows": one_sided[0],
        "one_sided.grad": one_sided[1],
        "empty.rows": empty[0],
        "empty.grad": empty[1],
        "sum": sum_over_ranks(torch.tensor([1.0 + rank, 10.0])),
    }


def given_world(shard: Shard = WHOLE) -> World:
    return world(random_sequences(30, ITEMS, 12, seed=9), ITEMS, shard=shard)


def state_of(t: Trainer, w: World) -> Found:
    state = {f"model.{name}": value.clone() for name, value in w.model.state_dict().items()}
    return state | {f"trainer.{name}": value.clone() for name, value in t.state_dict().items()}


def trains(rank: int) -> Found:
    """30 steps on different samples; at every third, rank 1 has only users without any behaviour."""
    torch.manual_seed(rank)  # the processes' global generators differ
    return _train(rank, given_world())


def trains_sharded(rank: int) -> Found:
    """The same, each rank holding every second row of the item table; item vectors as validation wants them."""
    w = given_world(Shard(rank, RANKS))
    return _train(rank, w) | {"vectors": pool_all(w.model.item_table, w.bags)}


def fetches(rank: int) -> Found:
    """Rows from a table of ten, of which each rank owns five; then from rank 1 alone; then nobody wants any."""
    weight = torch.arange(10.0).unsqueeze(1)[rank::RANKS].contiguous()
    wanted = torch.tensor([[7, 0, 3], [0, 4, 9]][rank])
    alone = wanted[:0] if rank == 0 else wanted
    return {
        "both": fetch_rows(weight, route_rows(wanted)),
        "alone": fetch_rows(weight, route_rows(alone)),
        "none": fetch_rows(weight, route_rows(wanted[:0])),
    }


def _train(rank: int, w: World) -> Found:
    t = trainer(w, LossConfig(uniform_negatives=8, popularity_negatives=8, in_batch=True), behaviour_dropout=0.2)
    samples, losses = all_targets(w.sequences), []
    for step in range(STEPS):
        batch = samples[torch.randint(0, len(samples), (8,), generator=generator(1000 * rank + step))]
        if rank == 1 and step % 3 == 0:
            batch = Samples(torch.arange(8), w.sequences.offsets[:8])
        losses.append(t.train_step(w.sequences, batch))
    return state_of(t, w) | {"losses": torch.stack(losses)}


def merged_samples(w: World) -> list[Samples]:
    samples = all_targets(w.sequences)
    return [samples[torch.randint(0, len(samples), (16,), generator=generator(step))] for step in range(3)]


DRAWN = LossConfig(uniform_negatives=8, popularity_negatives=8)


def trains_on_shares(rank: int) -> Found:
    """Three steps with drawn negatives on every second sample of each batch."""
    w = given_world()
    t = trainer(w, DRAWN, OptimConfig(learning_rate=0.01, table_learning_rate=0.01))
    losses = [t.train_step(w.sequences, batch[torch.arange(rank, 16, RANKS)]) for batch in merged_samples(w)]
    return state_of(t, w) | {"losses": torch.stack(losses)}


UNEVEN = (12, 10, 16)  # of 16 samples, how many rank 0 takes in each step


def trains_on_uneven_shares(rank: int) -> Found:
    """The same with 12, 10 and all 16 samples on rank 0; in the last step rank 1 has one that must not count."""
    w = given_world()
    t = trainer(w, LossConfig(kind="full"), OptimConfig(learning_rate=0.01, table_learning_rate=0.01))
    for batch, of_first in zip(merged_samples(w), UNEVEN, strict=True):
        share = torch.arange(of_first) if rank == 0 else torch.arange(of_first, 16)
        weight = RANKS * len(share) / 16
        t.train_step(w.sequences, batch[share if len(share) else torch.tensor([0])], weight)
    return state_of(t, w)


def begins(rank: int, ranks: int = RANKS) -> Found:
    """Begin a whole and a sharded table with the factors of this rank's users; and take a number from rank 0."""
    users = given_world().sequences
    own = replace(users, past=users.lengths * (torch.arange(len(users)) % ranks == rank))
    found = {"told": from_first_rank(torch.tensor([rank + 7.0]))}
    for name, shard in (("whole", WHOLE), ("sharded", Shard(rank, ranks))):
        table = EmbeddingTable(ITEMS + 3, 8, 0.1, generator(1), [1], shard)
        begin_with_factors(table, lambda: [own], ITEMS, 0.1, seed=0)
        found[name] = table.weight.detach()
    return found
