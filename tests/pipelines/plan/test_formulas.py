"""Formulas by hand, at numbers small enough to check by eye."""

import math
from dataclasses import replace

import pytest

from pipelines.errors import UserError
from pipelines.plan import memory, network, preprocessing, ranking, training
from pipelines.plan.distinct_items import distinct_items
from pipelines.plan.machine import Machine, described, with_figures
from pipelines.plan.plan import EPOCH, TASK, TRAIN, WORKER, make_plan
from pipelines.plan.workload import Workload
from tests.pipelines.plan.given import config, workload

SMALL = {
    "repeat": "none",
    "history": "newest",
    "dim": 8,
    "interests": 2,
    "max_history": 10,
    "hidden": (16,),
    "recency": False,
}


def test_users_of_two_events_on_average_leave_these_samples() -> None:
    # q = 1/2: a user has n events with chance 2^-n. n = 2 trains on 2, one sample; n >= 4 on n - 2, n - 3 samples.
    given = workload(events=2_000, users=1_000)
    by_hand = 1_000 * (1 / 4 + sum((n - 3) * 2.0**-n for n in range(4, 60)))
    assert given.samples == pytest.approx(by_hand)
    assert given.held_out == 250  # n >= 3
    assert given.train_events == 2_000 - 2 * 250


def test_users_held_out_do_not_train() -> None:
    given = workload(events=100, users=10, data={"events": {"path": "none"}, "split": {"protocol": "user_holdout"}})
    assert (given.held_out, given.train_users, given.train_events, given.samples) == (1, 8, 80, 72)


def test_an_epoch_has_a_step_for_each_full_or_started_batch() -> None:
    given = workload(events=2_000, users=1_000, train={"workers": 2, "batch_size": 100})
    assert given.samples == pytest.approx(500)
    assert (given.rank_batch, given.steps) == (50, 5)


def test_all_items_are_touched_where_far_more_is_drawn_than_there_are() -> None:
    assert distinct_items(workload(items=10), 1e6) == pytest.approx(10)


def test_hardly_an_item_is_touched_twice_where_there_are_many_and_all_are_alike() -> None:
    loss = {"uniform_negatives": 100, "popularity_negatives": 0}
    given = Workload(1e6, 1e9, 1e4, config(loss=loss), zipf=0)
    assert distinct_items(given, 10) == pytest.approx(10 * (given.history + 1) + 100, rel=1e-3)


def test_a_full_softmax_touches_every_item() -> None:
    assert distinct_items(workload(items=5_000, loss={"kind": "full"}), 1) == 5_000


def test_a_worker_holds_its_table_and_state_once_or_its_share() -> None:
    alone = memory.training_worker(workload(items=998, model=SMALL), Machine())
    assert alone[memory.TABLE] == 4 * 8 * 1_000
    assert alone["adam state of the table"] == (8 * 8 + 4) * 1_000
    shared = memory.training_worker(
        workload(items=998, model=SMALL, train={"workers": 4, "shard_items": True}), Machine()
    )
    assert shared[memory.TABLE] == 4 * 8 * 250
    assert shared[memory.RANKED] == alone[memory.RANKED] == 2 * 4 * 8 * 998 + memory.search_bytes()


def test_two_workers_send_rows_with_numbers_and_the_dense_gradients() -> None:
    given = workload(model=SMALL, train={"workers": 2})
    sent = network.step_sent(given)
    rows = distinct_items(given, 512)
    assert sent == pytest.approx({
        "dense gradients, all-reduce": 4 * given.parameters, "item rows": rows * (8 + 4 * 8) + 8
    })  # fmt: skip
    assert given.parameters == 8 * 8 + (8 * 16 + 16) + (16 * 8 + 8)


def test_one_worker_sends_nothing() -> None:
    assert network.step_sent(workload()) == {}
    assert network.validation_received(workload()) == 0


def test_a_sharded_table_is_gathered_at_a_validation() -> None:
    given = workload(items=1_000, model=SMALL, train={"workers": 4, "shard_items": True})
    assert network.validation_received(given) == 750 * (8 + 32)


def test_step_work_counts_products_cells_and_rows() -> None:
    loss = {"uniform_negatives": 6, "popularity_negatives": 0}
    given = workload(events=1e6, users=1_000, model=SMALL, loss=loss, train={"batch_size": 4})
    work = training.step_work(given)
    scores, mlp = 6 * 4 * 2 * 6 * 8, 6 * 4 * 2 * (8 * 16 + 16 * 8)
    routing = (4 * 2 + 6) * 4 * 2 * (10 * 8 + 8 * 8)
    assert work.flop == scores + mlp + routing
    assert work.cells == 4 * 10 * 8
    assert work.rows == pytest.approx(1.03 * distinct_items(given, 4) * 8)


def test_workers_update_the_rows_of_all_or_with_shards_their_own() -> None:
    given = workload(train={"workers": 4, "batch_size": 400})
    own, union = distinct_items(given, 100), distinct_items(given, 400)
    assert training.rows_touched(given) == pytest.approx(union + 0.14 * 4 * own + 0.03 * own)
    sharded = workload(
        train={"workers": 4, "batch_size": 400, "shard_items": True}, optim={"table_optimizer": "adagrad"}
    )
    assert training.rows_touched(sharded) == pytest.approx(own * (1 + 0.87 + 2 * 0.17))


def test_a_report_waits_every_50_steps_and_at_each_validation() -> None:
    given = workload(events=2_000, users=1_000, train={"batch_size": 4, "validate_every_steps": 25})  # 500 samples
    assert given.steps == 125
    assert training.report_seconds(given, Machine(report=0.5)) == 0.5 * (2 + 5)


def test_a_search_scores_every_item_for_every_interest() -> None:
    machine = Machine(score=10, product=100)
    assert ranking.search_seconds(30, 2, 4, machine) == pytest.approx(30 * 2 * (1 / 10 + 2 * 4 / 100))


def test_passes_take_the_events_over_all_cores_that_have_a_part() -> None:
    machine = Machine(clean=1e6)
    assert preprocessing.pass_seconds(workload(events=64e6), machine, 8) == 8
    assert preprocessing.pass_seconds(workload(events=1e6), machine, 8) == 0.5  # two parts


def test_a_training_is_its_start_its_epochs_and_its_end() -> None:
    made = make_plan(workload(train={"epochs": 7}), Machine())
    seconds = made.stage(TRAIN).seconds
    assert made.stage(TRAIN).total == pytest.approx(
        Machine().start_train + 7 * made.stage(EPOCH).total + seconds["driver"]
    )


def test_factors_take_seven_passes_there_and_back_once_for_each_training() -> None:
    begun = {"label_share": 0.25, "workers": 2}
    given, drawn = workload(train=begun), workload(train=begun, model={"init": "normal"})
    machine = Machine(pair=1e6, flop=1e30)
    by_hand = 2 * 7 * (given.train_events * 0.75 / 2) * (given.config.model.dim + 16) / 1e6
    assert training.factor_seconds(given, machine, 1) == pytest.approx(by_hand)
    assert training.factor_seconds(drawn, machine, 1) == 0

    def computed(each: Workload) -> float:
        return make_plan(each, machine).stage(TRAIN).seconds["compute"]

    twice = workload(train={**begun, "refit": True})
    assert computed(twice) == pytest.approx(2 * computed(given))


@pytest.mark.parametrize(
    ("workers", "threads", "figures", "found"),
    [
        (1, None, {"cores": 8}, (1, 1, 8)),  # nodes, workers a node, threads: alone on a machine
        (2, None, {"cores": 8}, (1, 2, 4)),
        (16, None, {"cores": 8}, (2, 8, 1)),
        (16, 4, {"cores": 8}, (8, 2, 4)),
        (4, None, {"cores": 8, "memory": 2e9, "worker": 1e9}, (4, 1, 1)),  # memory for one each
    ],
)
def test_workers_go_where_cores_and_memory_are(
    workers: int, threads: int | None, figures: dict[str, float], found: tuple[int, int, int]
) -> None:
    made = make_plan(workload(train={"workers": workers, "threads": threads}), replace(Machine(), **figures))
    assert (made.nodes, made.workers_a_node, made.threads) == found


def test_given_nodes_are_filled_evenly() -> None:
    made = make_plan(workload(train={"workers": 7}), Machine(cores=2), nodes=4)
    assert (made.nodes, made.workers_a_node, made.process(WORKER).a_node) == (4, 2, 2)
    assert made.process(TASK).a_node == 2


def test_figures_of_the_machine_are_changed_by_name() -> None:
    assert with_figures(Machine(), ["cores=32", "memory=256G"]) == Machine(cores=32, memory=2.56e11)


@pytest.mark.parametrize("text", ["core=2", "cores", "cores=", "cores=0", "cores=many"])
def test_a_wrong_figure_is_one_line_that_names_it(text: str) -> None:
    with pytest.raises(UserError, match="--machine core"):
        with_figures(Machine(), [text])


def test_every_figure_says_what_it_is() -> None:
    found = described(Machine())
    assert all(value > 0 and what for _, value, what in found)
    assert ("cores", 2, "of a node") in found


def test_users_without_a_second_event_are_refused() -> None:
    with pytest.raises(UserError, match="--events 10: must be more than --users 10"):
        workload(events=10, users=10)


def test_history_is_at_most_what_the_model_sees() -> None:
    long = workload(events=1e9, users=1_000, model={"max_history": 20})
    assert long.history == pytest.approx(20, rel=1e-3)
    assert long.width == 20
    assert workload(events=2_000, users=1_000).history == pytest.approx(2, rel=1e-3)  # 1, 2, 3 ... with chance 2^-t
    assert math.isfinite(workload(events=1_001, users=1_000).width)
