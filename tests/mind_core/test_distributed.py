"""Two gloo processes: replicas stay bit-identical, and two ranks are one merged batch."""

from __future__ import annotations

import pytest
import torch

from mind_core.config import LossConfig, OptimConfig
from mind_core.distributed import exchange_rows, sum_over_ranks, world_size
from mind_core.embeddings import Shard, pool_all
from tests.mind_core import ranks
from tests.mind_core.given import trainer


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[ranks.Found]]:
    """All tasks in one pair of processes: starting them takes longer than what they do."""
    tasks = [
        ranks.exchanges,
        ranks.fetches,
        ranks.trains,
        ranks.trains_sharded,
        ranks.trains_on_shares,
        ranks.trains_on_uneven_shares,
        ranks.begins,
    ]
    return ranks.on_two_ranks(tasks, tmp_path_factory.mktemp("ranks"))


def test_a_single_process_exchanges_nothing() -> None:
    rows, grad = torch.tensor([3, 7]), torch.ones(2, 4)
    assert world_size() == 1
    assert exchange_rows(rows, grad)[0] is rows
    assert exchange_rows(rows, grad)[1] is grad
    assert torch.equal(sum_over_ranks(grad), grad)


def test_row_gradients_are_averaged_over_ranks_even_where_a_rank_has_none(found: dict[str, list[ranks.Found]]) -> None:
    for of_rank in found["exchanges"]:
        assert of_rank["both.rows"].tolist() == [2, 5, 9]
        assert of_rank["both.grad"].tolist() == [[0.5, 1.0], [6.5, 12.0], [15.0, 20.0]]
        assert of_rank["one_sided.rows"].tolist() == [2, 5]
        assert of_rank["one_sided.grad"].tolist() == [[0.5, 1.0], [1.5, 2.0]]
        assert of_rank["empty.rows"].shape == (0,)
        assert of_rank["empty.grad"].shape == (0, 2)
        assert of_rank["sum"].tolist() == [3.0, 20.0]


def test_replicas_are_bit_identical_after_thirty_steps_even_where_a_rank_saw_only_padding(
    found: dict[str, list[ranks.Found]],
) -> None:
    first, second = found["trains"]
    assert first.keys() == second.keys()
    for name in first:
        if name != "losses":
            assert torch.equal(first[name], second[name]), name
    assert not torch.equal(first["losses"], second["losses"]), "each rank reports the loss of its own batch"
    before = ranks.given_world().model.item_table.weight
    assert not torch.equal(first["model.item_table.weight"], before)
    assert first["model.item_table.weight"].isfinite().all()


def test_rows_come_from_the_ranks_that_own_them_in_the_order_asked(found: dict[str, list[ranks.Found]]) -> None:
    first, second = found["fetches"]
    assert first["both"].flatten().tolist() == [7, 0, 3]
    assert second["both"].flatten().tolist() == [0, 4, 9]
    assert first["alone"].shape == (0, 1)
    assert second["alone"].flatten().tolist() == [0, 4, 9]
    assert first["none"].shape == second["none"].shape == (0, 1)


def test_a_sharded_table_trains_to_the_bits_of_a_replicated_one(found: dict[str, list[ranks.Found]]) -> None:
    whole = found["trains"][0]
    for rank, shard in enumerate(found["trains_sharded"]):
        assert torch.equal(shard["vectors"], found["trains_sharded"][0]["vectors"])
        for name in whole:
            if name == "losses":
                assert torch.equal(shard[name], found["trains"][rank][name])
            elif "item_table" in name or "rows.items" in name:
                assert torch.equal(shard[name], whole[name][rank :: ranks.RANKS]), name
            else:
                assert torch.equal(shard[name], whole[name]), name
    w = ranks.given_world()
    w.model.item_table.weight.copy_(whole["model.item_table.weight"])
    assert torch.equal(found["trains_sharded"][0]["vectors"], pool_all(w.model.item_table, w.bags))


def test_a_sharded_table_refuses_the_full_softmax() -> None:
    w = ranks.given_world(Shard(0, 2))
    with pytest.raises(ValueError, match="full"):
        trainer(w, LossConfig(kind="full"))


def test_two_ranks_train_as_one_process_on_the_merged_batch(found: dict[str, list[ranks.Found]]) -> None:
    first, second = found["trains_on_shares"]
    w = ranks.given_world()
    t = trainer(w, ranks.DRAWN, OptimConfig(learning_rate=0.01, table_learning_rate=0.01))
    merged = torch.stack([t.train_step(w.sequences, samples) for samples in ranks.merged_samples(w)])
    assert ((first["losses"] + second["losses"]) / 2).tolist() == pytest.approx(merged.tolist(), rel=1e-5)
    assert_equal_up_to_rounding(first, ranks.state_of(t, w))


def test_ranks_with_uneven_shares_train_as_one_process_too(found: dict[str, list[ranks.Found]]) -> None:
    w = ranks.given_world()
    t = trainer(w, LossConfig(kind="full"), OptimConfig(learning_rate=0.01, table_learning_rate=0.01))
    for samples in ranks.merged_samples(w):
        t.train_step(w.sequences, samples)
    first, second = found["trains_on_uneven_shares"]
    assert_equal_up_to_rounding(first, ranks.state_of(t, w))
    assert all(torch.equal(first[name], second[name]) for name in first)


def assert_equal_up_to_rounding(found: ranks.Found, expected: ranks.Found) -> None:
    """Adam's moments are the gradients' running means: equal moments are equal gradients."""
    for name, value in expected.items():
        atol = 1e-6 if "trainer" in name else 1e-4
        assert torch.allclose(found[name].float(), value.float(), rtol=1e-3, atol=atol), name


def test_ranks_that_share_the_users_begin_with_the_table_of_one_that_has_them_all(
    found: dict[str, list[ranks.Found]],
) -> None:
    first, second = found["begins"]
    assert first["told"] == second["told"] == 7
    assert torch.equal(first["whole"], second["whole"])
    alone = ranks.begins(0, ranks=1)["whole"]
    had = alone[: ranks.ITEMS].norm(dim=1) > 0
    assert had.sum() > 10
    torch.testing.assert_close(first["whole"] @ first["whole"].T, alone @ alone.T, rtol=0, atol=1e-4)
    assert torch.equal(first["sharded"], first["whole"][0::2])
    assert torch.equal(second["sharded"], second["whole"][1::2])
