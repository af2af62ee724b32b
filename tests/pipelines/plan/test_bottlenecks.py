from dataclasses import replace

from pipelines.plan.bottlenecks import bottlenecks
from pipelines.plan.machine import Machine
from pipelines.plan.plan import make_plan
from tests.pipelines.plan.given import workload

ROOMY = Machine(memory=1e15)


def first(made: object) -> tuple[str, str, str]:
    found = bottlenecks(made)[0]  # type: ignore[arg-type]
    return found.kind, found.where, found.change


def test_where_all_fits_and_is_short_the_longest_stage_is_named_alone() -> None:
    found = bottlenecks(make_plan(workload(events=1e5, items=1e3, users=1e3, train={"epochs": 1}), Machine()))
    assert len(found) == 1
    assert found[0].where.startswith("train: ")


def test_a_table_that_does_not_fit_is_to_be_sharded() -> None:
    # one interest and no normalised copy, so that the table is more than what a validation holds
    model = {"dim": 512, "interests": 1, "normalize_items": False}
    made = make_plan(workload(items=2e6, model=model, train={"workers": 8}), Machine(memory=1e10), nodes=8)
    found = next(each for each in bottlenecks(made) if each.where.startswith("training worker"))
    assert found.kind == "memory"
    assert found.change.startswith("train.shard_items=true")


def test_vectors_of_too_many_items_are_the_head_s_bottleneck() -> None:
    found = next(each for each in bottlenecks(make_plan(workload(items=1e8), Machine())) if each.kind == "driver")
    assert "item vectors" in found.where
    assert "on several nodes" in found.change


def test_ranking_everybody_at_each_validation_is_to_be_a_sample() -> None:
    kind, where, change = first(make_plan(workload(events=1e9, items=1e7, users=1e8), ROOMY))
    assert (kind, where.split(":")[0]) == ("compute", "train")
    assert change.startswith("train.validation_users=2000")


def test_counts_that_the_driver_adds_are_a_bottleneck_of_the_driver() -> None:
    train = {"validation_users": 2_000, "epochs": 1, "targets_per_user": 1}
    made = make_plan(workload(events=1e11, items=5e9, users=1e9, train=train), ROOMY, nodes=10_000)
    found = next(each for each in bottlenecks(made) if each.where.startswith("preprocess"))
    assert found.kind == "driver"


def test_a_slow_network_is_told_and_mended_by_shards() -> None:
    train = {"workers": 64, "batch_size": 65_536, "validation_users": 2_000}
    made = make_plan(workload(events=1e10, items=1e6, users=1e8, train=train), replace(ROOMY, network=1e7), nodes=64)
    found = next(each for each in bottlenecks(made) if each.where.startswith("train"))
    assert (found.kind, found.change) == ("network", "train.shard_items=true: rows go to their owner alone")
