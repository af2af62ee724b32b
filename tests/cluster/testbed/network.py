"""A bridge on this machine and one network namespace a node; all names derive from the bed's folder.

So whatever a bed has made is found and removed without its state file. No namespace has a route out of the bridge.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import time
from pathlib import Path

from tests.cluster.testbed.state import BedError

TOOLS = ("ip", "unshare", "nsenter", "mount")
KILL_TIMEOUT_S = 10


def ip(*arguments: str, check: bool = True) -> str:
    """What ``ip`` printed; BedError with its complaint if it failed and `check`; "" where there is no ``ip``."""
    if shutil.which("ip") is None:
        if check:
            raise BedError("ip is not installed: apt-get install iproute2")
        return ""
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True)
    if check and done.returncode:
        raise BedError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout


def can_isolate() -> bool:
    """Whether this process may make namespaces: root, outside a container that forbids it."""
    if os.geteuid() != 0 or not all(shutil.which(tool) for tool in TOOLS):
        return False
    return (
        subprocess.run(["unshare", "--net", "--mount", "--pid", "--fork", "true"], capture_output=True).returncode == 0
    )


def bridge(folder: Path) -> str:
    """The name of the bed's bridge, and what the names of its namespaces begin with (an interface: at most 15)."""
    return "mind" + hashlib.sha256(str(folder).encode()).hexdigest()[:6]


def namespace(folder: Path, node: str) -> str:
    return f"{bridge(folder)}-{node}"


def make_bridge(folder: Path) -> str:
    """Make the bridge with the address .1 of a subnet that nobody on this machine has, and return that subnet."""
    taken = ip("-br", "-4", "address")
    subnet = next(each for number in range(256) if f" {(each := f'10.77.{number}')}." not in taken)
    name = bridge(folder)
    ip("link", "add", name, "type", "bridge")
    ip("address", "add", f"{subnet}.1/24", "dev", name)
    ip("link", "set", name, "up")
    return subnet


def add_namespace(folder: Path, node: str, address: str) -> None:
    """A namespace with loopback and an eth0 on the bridge."""
    name = namespace(folder, node)
    veth = f"{bridge(folder)}-{address.rpartition('.')[2]}"
    ip("netns", "add", name)
    ip("link", "del", veth, check=False)  # of a node that had the address before: the kernel removes it in its own time
    ip("link", "add", veth, "type", "veth", "peer", "name", "eth0", "netns", name)
    ip("link", "set", veth, "master", bridge(folder), "up")
    ip("-n", name, "address", "add", f"{address}/24", "dev", "eth0")
    ip("-n", name, "link", "set", "lo", "up")
    ip("-n", name, "link", "set", "eth0", "up")


def namespaces(folder: Path) -> list[str]:
    """List the bed's namespaces, whether or not its state knows them."""
    listed = (line.split()[0] for line in ip("netns", "list", check=False).splitlines() if line)
    return [name for name in listed if name.startswith(f"{bridge(folder)}-")]


def remove_namespace(name: str) -> None:
    """SIGKILL everything in it, at once as far as the kernel can, and remove it with its end of the bridge."""
    deadline = time.monotonic() + KILL_TIMEOUT_S
    while pids := ip("netns", "pids", name, check=False).split():
        if time.monotonic() > deadline:
            raise BedError(f"{name}: processes do not die: {' '.join(pids)}")
        # the kernel ends all of a PID namespace with its first process
        subprocess.run(["kill", "-9", *pids], capture_output=True)
        time.sleep(0.05)
    ip("netns", "delete", name, check=False)


def bridge_exists(folder: Path) -> bool:
    return bool(ip("-br", "link", "show", bridge(folder), check=False))


def remove_bridge(folder: Path) -> None:
    """With the nodes' ends of it, which the kernel would clear away a moment later."""
    for line in ip("-br", "link", "show", "master", bridge(folder), check=False).splitlines():
        ip("link", "delete", line.split("@")[0], check=False)
    ip("link", "delete", bridge(folder), check=False)
