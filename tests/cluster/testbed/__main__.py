"""``python -m tests.cluster.testbed up | down | add-node | remove-node NAME | status | env``; --help says more."""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from pathlib import Path

from tests.cluster.testbed import nodes, ray_nodes
from tests.cluster.testbed.bed import Testbed
from tests.cluster.testbed.state import DEFAULT_FOLDER, BedError

DRAIN_S = 30
USE_IT = 'eval "$(python -m tests.cluster.testbed env)"'


def arguments() -> argparse.ArgumentParser:
    """What may be typed."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.cluster.testbed",
        description="A Ray cluster of several nodes on this machine, with an S3 server and MLflow on PostgreSQL.",
    )
    parser.add_argument(
        "--folder", type=Path, default=DEFAULT_FOLDER, help="of the bed; default: $MIND_TESTBED or %(default)s"
    )
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="start everything; returns when it can be used")
    up.add_argument("--workers", type=int, default=2, help="default: %(default)s")
    up.add_argument("--cpus", type=int, default=1, help="of each worker; default: %(default)s")
    up.add_argument("--plain", action="store_true", help="no namespaces: all on 127.0.0.1, with shared files")
    commands.add_parser("down", help="remove everything, also after a crash half-way")
    add = commands.add_parser("add-node", help="one more worker")
    add.add_argument("--cpus", type=int, help="default: as the bed's others")
    remove = commands.add_parser("remove-node", help="SIGKILL everything on a worker")
    remove.add_argument("name")
    drain = "a preemption: the cluster is told so many seconds ahead; default: %(const)s"
    remove.add_argument("--drain", type=int, nargs="?", const=DRAIN_S, metavar="SECONDS", help=drain)
    commands.add_parser("status", help="nodes and addresses")
    commands.add_parser("env", help=f"export lines for the shell: {USE_IT}")
    return parser


def status(bed: Testbed) -> str:
    """A line a node, as this machine and as the cluster sees it, and the addresses."""
    state = bed.state
    joined = ray_nodes.alive(state)
    lines = []
    for node in state.nodes.values():
        up = "up" if nodes.init_process(node.folder) else "down"
        seen = "" if node.role == "service" else "in the cluster" if node.name in joined else "not in the cluster"
        lines.append(f"{node.name:<10} {node.ip:<12} {up:<5} {seen}".rstrip())
    if state.subnet is None:
        lines.append("without namespaces: all nodes are on 127.0.0.1 and share this machine's files")
    lines += [f"{name:<10} {state.url(name)}" for name in ("dashboard", "mlflow", "s3")]
    return "\n".join(lines)


def main() -> None:
    """Run one command; BedError is exit code 1 and its message."""
    given = arguments().parse_args()
    bed = Testbed(given.folder)
    begun = time.monotonic()
    try:
        if given.command == "up":
            bed.up(given.workers, given.cpus, given.plain)
            print(f"{status(bed)}\nup in {time.monotonic() - begun:.0f} s; use it: {USE_IT}")
        elif given.command == "down":
            found = bed.leftovers()
            bed.down()
            print(f"down in {time.monotonic() - begun:.1f} s" if found else "nothing was up")
        elif given.command == "add-node":
            print(bed.add_node(given.cpus).name)
        elif given.command == "remove-node":
            bed.remove_node(given.name, given.drain)
        elif given.command == "status":
            print(status(bed))
        else:
            print("\n".join(f"export {name}={shlex.quote(value)}" for name, value in bed.env().items()))
    except BedError as error:
        sys.exit(f"testbed: {error}")


if __name__ == "__main__":
    main()
