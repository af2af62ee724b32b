"""The first process of a node: makes its folders private, starts its daemon and ends the node with it.

Run by path, not as a module, so that a node starts without importing the bed: ``python node_init.py SPEC.json``. The
environment is the node's own: secrets come that way and stand in no argument and no file.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

PR_SET_CHILD_SUBREAPER = 36


def mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)


def isolate(spec: dict[str, Any]) -> None:
    """In new namespaces: a host name, a /tmp and /dev/shm of the node's own, and all else of this machine read-only."""
    subprocess.run(["hostname", spec["name"]], check=True)
    for path in spec["below_tmp"]:  # bound below what is about to cover /tmp, and carried along with it
        place = Path(spec["tmp"]) / Path(path).relative_to("/tmp")
        place.mkdir(parents=True, exist_ok=True)
        mount("--bind", "-o", "ro", path, str(place))
    mount("--bind", f"{spec['folder']}/hosts", "/etc/hosts")
    mount("--rbind", spec["tmp"], "/tmp")
    mount("-t", "tmpfs", "-o", f"size={spec['shm_bytes']}", "tmpfs", "/dev/shm")
    mount("-o", "remount,bind,ro", "/")


def kill_descendants() -> None:
    """Without a PID namespace, whose first process takes all along: orphans come to this one until none is left."""
    while children := Path(f"/proc/self/task/{os.getpid()}/children").read_text().split():
        for child in children:
            os.kill(int(child), signal.SIGKILL)
        while True:
            try:
                if os.waitpid(-1, os.WNOHANG)[0] == 0:
                    break
            except ChildProcessError:
                break
        time.sleep(0.02)


def main() -> None:
    """Live as long as the daemon does, and collect orphans meanwhile."""
    spec = json.loads(Path(sys.argv[1]).read_text())
    if spec["isolated"]:
        isolate(spec)
    else:
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        daemon = subprocess.Popen(spec["command"], cwd=spec["cwd"], stdin=subprocess.DEVNULL)
        while True:
            pid, status = os.wait()
            if pid == daemon.pid:
                print(f"{spec['name']}: its daemon ended with status {os.waitstatus_to_exitcode(status)}", flush=True)
                break
    finally:
        if not spec["isolated"]:
            kill_descendants()
    os._exit(0)


if __name__ == "__main__":
    main()
