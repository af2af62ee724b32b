"""One bed: PostgreSQL, S3, MLflow, a Ray head and its workers, each on a host of its own, up and down as a whole."""

from __future__ import annotations

import contextlib
import secrets
import shutil
import socket
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.cluster.testbed import network, nodes, ray_nodes, services
from tests.cluster.testbed.state import DEFAULT_FOLDER, FILE, BedError, Node, Role, State

SERVICE_HOST = {
    "postgres": 2,
    "s3": 3,
    "mlflow": 4,
    "head": 10,
}  # the last number of an address; workers follow the head
RUN_TIMEOUT_S = 120
HOSTS = 240  # workers ever, in one subnet


class Testbed:
    """A real cluster on this machine.

    Parameters
    ----------
    folder
        Of everything that it makes. It must be short without namespaces: sockets lie in it.
    """

    __test__ = False  # pytest: no class of tests

    def __init__(self, folder: Path | str = DEFAULT_FOLDER) -> None:
        self.folder = Path(folder).resolve()

    @property
    def state(self) -> State:
        """What is up; BedError if nothing is."""
        if (state := State.load(self.folder)) is None:
            raise BedError(f"{self.folder}: no test bed is up there")
        return state

    def up(self, workers: int = 2, cpus: int = 1, plain: bool = False) -> State:
        """Start everything and wait until it can be used; what had started is removed again if something fails.

        Parameters
        ----------
        workers, cpus
            How many nodes, each with how many CPUs. The head has none.
        plain
            Without namespaces, on 127.0.0.1: nodes share this machine's files. So it is in any case without root.

        Raises
        ------
        BedError
            If a bed is up in the folder, or one of its parts does not start.
        """
        isolated = not plain and network.can_isolate()
        self._claim(isolated)
        try:
            subnet = network.make_bridge(self.folder) if isolated else None
            ports = services.PORTS | ray_nodes.PORTS if isolated else _free_ports([*services.PORTS, *ray_nodes.PORTS])
            drawn = {name: secrets.token_hex(32) for name in ("token", "key", "secret", "password")}
            state = State(self.folder, subnet, cpus, ports, drawn)
            _write_secret(self.folder / "token", drawn["token"])
            for name in SERVICE_HOST:
                _add(state, name, "head" if name == "head" else "service", SERVICE_HOST[name])
            state.save()
            self._start_services(state)
            added = [self._start_worker(state, cpus) for _ in range(workers)]
            services.await_service(state, "mlflow")
            for node in added:
                ray_nodes.await_worker(state, node)
        except BaseException:
            self.down()
            raise
        return state

    def _claim(self, isolated: bool) -> None:
        """Make the folder, which only one bed can; one whose making was cut short counts as up."""
        try:
            self.folder.mkdir(mode=0o711, parents=True)  # PostgreSQL's account passes through
        except FileExistsError:
            if not (self.folder / FILE).exists() and any(self.folder.iterdir()):
                raise BedError(f"{self.folder}: exists and is no test bed's folder") from None
            raise BedError(
                f"{self.folder}: a test bed is up already, or what is left of one: take it down first"
            ) from None
        if isolated and network.bridge_exists(self.folder):
            raise BedError(f"{self.folder}: a test bed's network is left over: take it down first")
        self.folder.chmod(0o711)

    def _start_services(self, state: State) -> None:
        """All at once but for MLflow, which wants its database; return before MLflow answers."""
        nodes.start(self.folder, state.nodes["head"], *self._head(state))
        for service in sorted(services.SERVICES, key=lambda each: each.after is not None):
            if service.after:
                services.await_service(state, service.after)
            nodes.start(self.folder, state.nodes[service.name], service.command(state), service.environment(state))
        services.await_service(state, "s3")
        services.storage(state).create_dir(services.BUCKET)
        ray_nodes.await_head(state)

    def _head(self, state: State) -> tuple[list[str], dict[str, str]]:
        node = state.nodes["head"]
        self._give_token(state, node)
        return ray_nodes.head_command(state), ray_nodes.environment(state, node)

    def _give_token(self, state: State, node: Node) -> None:
        """Each node has a copy of its own, as on machines."""
        _write_secret(node.tmp_here / "home/.ray/auth_token", state.secrets["token"])

    def _start_worker(self, state: State, cpus: int) -> Node:
        if state.workers_made == HOSTS:
            raise BedError(f"{self.folder}: no address is left for another worker")
        state.workers_made += 1
        node = _add(state, f"worker-{state.workers_made}", "worker", SERVICE_HOST["head"] + state.workers_made)
        state.save()
        self._give_token(state, node)
        command = ray_nodes.worker_command(state, node, cpus)
        nodes.start(self.folder, node, command, ray_nodes.environment(state, node))
        return node

    def workers(self) -> list[str]:
        """The names of those that were not removed."""
        return [node.name for node in self.state.nodes.values() if node.role == "worker"]

    def add_node(self, cpus: int | None = None) -> Node:
        """Start one more worker, of `up`'s size if not told otherwise, and wait until the cluster counts it in."""
        state = self.state
        node = self._start_worker(state, state.cpus if cpus is None else cpus)
        ray_nodes.await_worker(state, node)
        return node

    def remove_node(self, name: str, drain_s: int | None = None) -> None:
        """Lose a node: SIGKILL to everything on it. Ray takes some seconds to notice.

        Parameters
        ----------
        drain_s
            The cluster is told so many seconds ahead, as of a preemption; it goes sooner if it falls idle.

        Raises
        ------
        BedError
            If no worker has this name.
        """
        state = self.state
        node = state.nodes.get(name)
        if node is None or node.role != "worker":
            raise BedError(f"{name}: no worker of this bed: {', '.join(self.workers()) or 'it has none'}")
        if drain_s is not None:
            ray_nodes.drain(state, node, drain_s)
        nodes.lose(self.folder, node)
        del state.nodes[name]
        state.save()

    def restart_head(self) -> None:
        """Lose the head with all that the cluster knew, and start another at its address; its workers are gone too."""
        for name in self.workers():
            self.remove_node(name)
        state = self.state
        nodes.lose(self.folder, state.nodes["head"])
        nodes.start(self.folder, state.nodes["head"], *self._head(state))
        ray_nodes.await_head(state)

    def run_on(
        self,
        name: str,
        command: Sequence[str],
        environment: Mapping[str, str] | None = None,
        timeout_s: float = RUN_TIMEOUT_S,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command on a node, with the environment of its tasks and RAY_ADDRESS, so that it can be a Ray driver.

        Returns
        -------
        CompletedProcess
            Output as text; returncode 124 where it took longer than `timeout_s`.
        """
        state = self.state
        if (node := state.nodes.get(name)) is None:
            raise BedError(f"{name}: no node of this bed: {', '.join(state.nodes)}")
        own = {} if node.role == "service" else ray_nodes.environment(state, node) | {"RAY_ADDRESS": state.ray_address}
        return nodes.run(node, command, own | dict(environment or {}), timeout_s)

    def env(self) -> dict[str, str]:
        """What a user of the cluster outside it sets. No RAY_ADDRESS: a driver here is on no node and cannot join."""
        state = self.state
        return {
            "RAY_API_SERVER_ADDRESS": state.url("dashboard"),
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(self.folder / "token"),
            "MIND_HOME": ray_nodes.home(),
            "MLFLOW_TRACKING_URI": state.url("mlflow"),
            **services.storage_environment(state),
        }

    def down(self) -> None:
        """Remove all that a bed in this folder made, however far it had come; nothing there is no error.

        Raises
        ------
        BedError
            If the folder is not a bed's, or a process does not die.
        """
        state = State.load(self.folder)
        if state is None and self.folder.exists() and set(self._entries()) - {"token", f"{FILE}.part"}:
            raise BedError(f"{self.folder}: no test bed's folder")
        for name in network.namespaces(self.folder):
            network.remove_namespace(name)
        for folder in self._entries():
            node = Node(folder, "worker", "", str(self.folder / folder), isolated=False)
            nodes.lose(self.folder, node)  # of a bed without namespaces
        network.remove_bridge(self.folder)
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self.folder)

    def _entries(self) -> list[str]:
        return [path.name for path in self.folder.iterdir()] if self.folder.exists() else []

    def leftovers(self) -> list[str]:
        """What `down` would have to remove, in words."""
        left = [f"namespace {name}" for name in network.namespaces(self.folder)]
        left += [f"bridge {network.bridge(self.folder)}"] if network.bridge_exists(self.folder) else []
        left += [f"process of {name}" for name in self._entries() if nodes.init_process(self.folder / name)]
        return left + ([f"folder {self.folder}"] if self.folder.exists() else [])


def _add(state: State, name: str, role: Role, number: int) -> Node:
    ip = f"{state.subnet}.{number}" if state.subnet else "127.0.0.1"
    node = state.nodes[name] = Node(name, role, ip, str(state.folder / name), isolated=state.subnet is not None)
    Path(node.folder).mkdir(mode=0o755)
    for folder, mode in (node.tmp_here, 0o1777), (node.tmp_here / "home", 0o700):
        folder.mkdir()
        folder.chmod(mode)
    return node


def _write_secret(path: Path, value: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
    path.write_text(value)


def _free_ports(names: Sequence[str]) -> dict[str, int]:
    """Held all at once, so that no two are the same."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in names]
        return {name: each.getsockname()[1] for name, each in zip(names, sockets, strict=True)}
