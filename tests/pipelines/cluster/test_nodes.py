from types import SimpleNamespace

import pytest
import ray

from pipelines.cluster.nodes import driver_note, free_nodes, free_resources


@pytest.fixture
def _two_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cluster of two nodes with two CPUs each, and one that has left; this process is on the second."""
    sizes = {"a": {"CPU": 2.0, "GPU": 1.0}, "b": {"CPU": 2.0}, "gone": {"CPU": 8.0}}
    nodes = [{"NodeID": name, "Alive": name != "gone", "Resources": size} for name, size in sizes.items()]
    monkeypatch.setattr(ray, "nodes", lambda: nodes)
    monkeypatch.setattr(ray, "get_runtime_context", lambda: SimpleNamespace(get_node_id=lambda: "b"))


@pytest.mark.usefixtures("_two_nodes")
def test_a_jobs_driver_holds_a_part_of_its_own_node(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIND_DRIVER_CPUS", "0.1")
    assert free_nodes() == [{"CPU": 2.0, "GPU": 1.0}, {"CPU": 1.9}]
    assert free_resources() == {"CPU": 3.9, "GPU": 1.0}
    assert driver_note() == " beside the job's driver (0.1 CPUs; on the head with --entrypoint-num-cpus 0)"


@pytest.mark.usefixtures("_two_nodes")
def test_without_a_job_nothing_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MIND_DRIVER_CPUS", raising=False)
    assert free_resources() == {"CPU": 4.0, "GPU": 1.0}
    assert driver_note() == ""
