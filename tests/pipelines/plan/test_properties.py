"""What must hold at any size."""

from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.plan import memory, network, preprocessing
from pipelines.plan.bottlenecks import bottlenecks
from pipelines.plan.machine import Machine
from pipelines.plan.plan import EPOCH, PREPROCESS, WORKER, Plan, make_plan
from pipelines.plan.workload import Workload
from tests.pipelines.plan.given import config

sizes = st.builds(
    Workload,
    events=st.floats(2e4, 1e11),
    items=st.floats(1, 1e9),
    users=st.floats(1, 1e4),
    config=st.builds(
        lambda workers, shard, drawn: config(
            train={"workers": workers, "shard_items": shard, "targets_per_user": drawn}
        ),
        st.sampled_from([1, 2, 16, 512]),
        st.booleans(),
        st.sampled_from([None, 5]),
    ),
    zipf=st.floats(0, 2),
)
growth = st.floats(1, 1e3)


def figures(plan: Plan) -> list[float]:
    """Everything that is printed."""
    parts: list[dict[str, float]] = [each.seconds for each in plan.stages]
    parts += [each.parts for each in plan.processes]
    parts += [preprocessing.disk(plan.workload), network.step_sent(plan.workload)]
    return [value for each in parts for value in each.values()]


def grown(workload: Workload, **factors: float) -> Workload:
    return replace(workload, **{name: getattr(workload, name) * factor for name, factor in factors.items()})


def with_train(workload: Workload, **changes: Any) -> Workload:
    return replace(
        workload, config=workload.config.model_copy(update={"train": workload.config.train.model_copy(update=changes)})
    )


def no_less(more: float, less: float) -> bool:
    return more >= less * (1 - 1e-6)


@settings(deadline=None, max_examples=60)
@given(sizes)
def test_nothing_is_negative_or_without_end_and_something_is_the_bottleneck(workload: Workload) -> None:
    plan = make_plan(workload, Machine())
    assert all(0 <= value < float("inf") for value in figures(plan))
    assert bottlenecks(plan)


@settings(deadline=None, max_examples=60)
@given(sizes, growth)
def test_more_events_of_as_many_users_take_no_less(workload: Workload, factor: float) -> None:
    less, more = (make_plan(each, Machine(), nodes=4) for each in (workload, grown(workload, events=factor)))
    assert no_less(more.stage(PREPROCESS).total, less.stage(PREPROCESS).total)
    assert no_less(more.stage(EPOCH).total, less.stage(EPOCH).total)
    assert no_less(sum(preprocessing.disk(more.workload).values()), sum(preprocessing.disk(less.workload).values()))
    assert no_less(sum(network.step_sent(more.workload).values()), sum(network.step_sent(less.workload).values()))


@settings(deadline=None, max_examples=60)
@given(sizes, growth)
def test_more_items_take_no_less(workload: Workload, factor: float) -> None:
    less, more = (make_plan(each, Machine(), nodes=4) for each in (workload, grown(workload, items=factor)))
    for one, other in zip(more.processes, less.processes, strict=True):
        assert no_less(one.bytes, other.bytes)
    for one, other in zip(more.stages, less.stages, strict=True):
        assert no_less(one.total, other.total)


@settings(deadline=None, max_examples=60)
@given(sizes, growth)
def test_more_users_of_as_many_events_each_take_no_less(workload: Workload, factor: float) -> None:
    less, more = (
        make_plan(each, Machine(), nodes=4) for each in (workload, grown(workload, events=factor, users=factor))
    )
    for one, other in zip(more.stages, less.stages, strict=True):
        assert no_less(one.total, other.total)


@settings(deadline=None, max_examples=60)
@given(sizes, st.integers(1, 64))
def test_another_node_takes_no_more_memory_of_any_node(workload: Workload, nodes: int) -> None:
    fewer, more = (make_plan(workload, Machine(), nodes=number) for number in (nodes, nodes + 1))
    for one, other in zip(fewer.processes, more.processes, strict=True):
        assert no_less(one.node_bytes, other.node_bytes)


@settings(deadline=None, max_examples=60)
@given(sizes)
def test_more_workers_hold_less_of_a_sharded_table_and_compute_less_in_a_step(workload: Workload) -> None:
    few, many = (with_train(workload, workers=workers, shard_items=True, input="stream") for workers in (2, 4))
    held = [sum(memory.training_worker(each, Machine()).values()) for each in (few, many)]
    assert no_less(held[0], held[1])
    fewer, more = (make_plan(each, Machine(), nodes=each.workers) for each in (few, many))
    assert no_less(fewer.stage(EPOCH).seconds["compute"], more.stage(EPOCH).seconds["compute"] * 0.99)


@settings(deadline=None, max_examples=60)
@given(sizes)
def test_where_no_nodes_are_given_there_is_memory_for_each_worker_or_it_has_a_node_alone(workload: Workload) -> None:
    worker = make_plan(workload, Machine()).process(WORKER)
    assert worker.a_node == 1 or worker.a_node * worker.bytes <= Machine().memory
