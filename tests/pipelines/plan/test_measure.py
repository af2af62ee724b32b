import numpy as np
import pytest

from pipelines.plan.machine import Machine, described
from pipelines.plan.measure import _fitted, measured
from tests.pipelines.plan.given import config


def test_costs_are_recovered_from_times_that_they_explain() -> None:
    terms = np.random.default_rng(0).random((7, 3)) * [1e9, 1e6, 1]
    costs = np.array([2e-11, 5e-9, 0.003])
    assert _fitted(terms.tolist(), (terms @ costs).tolist()) == pytest.approx(costs.tolist(), rel=1e-6)


def test_a_cost_is_never_nothing_so_that_its_rate_is_finite() -> None:
    terms = [[1.0, 5.0], [2.0, 1.0], [3.0, 4.0]]
    found = _fitted(terms, [1.0, 2.0, 3.0])
    assert found[0] == pytest.approx(1)
    assert found[1] == pytest.approx(1e-3 / 5)


@pytest.mark.slow
def test_every_rate_of_this_machine_is_found() -> None:
    found, default = (described(each) for each in (measured(Machine(), config()), Machine()))
    assert all(0 < value < float("inf") for _, value, _ in found)
    stay = ("network", "report", "start_", "driver", "worker", "task", "ray", "cores", "memory")
    rates = [name for name, _, _ in found if not name.startswith(stay)]
    before = {name: value for name, value, _ in default}
    assert all(value != before[name] for name, value, _ in found if name in rates)
