import os
import subprocess
import sys

JOIN = """
from pipelines.config.schema import RayConfig
from pipelines.errors import UserError
from pipelines.cluster.session import ray_session
try:
    with ray_session(RayConfig(address="127.0.0.1:1")):
        print("joined")
except UserError as error:
    print(error)
"""


def test_an_address_where_nobody_listens_fails_at_once_in_one_line() -> None:
    done = subprocess.run([sys.executable, "-c", JOIN], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.startswith("ray.address=127.0.0.1:1: cannot join the cluster: [Errno 111] Connection refused")
    assert done.stdout.count("\n") == 1


WARNED = """
import pipelines.training.train  # imports Ray before pipelines.cluster.session, as a command does
from ray._private.worker import print_to_stdstream
for text in ("WARNING: 4 PYTHON worker processes have been started on node: a6f2", "out of memory"):
    print_to_stdstream({"lines": [text], "pid": "raylet", "is_err": False}, ignore_prefix=False)  # as raylets reach us
"""


def test_the_size_of_a_small_machine_is_no_warning_among_the_results() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "RAY_DEDUP_LOGS_SKIP_REGEX"}
    done = subprocess.run(
        [sys.executable, "-c", WARNED], capture_output=True, text=True, timeout=60, check=True, env=environment
    )
    assert "started on node" not in done.stdout
    assert "out of memory" in done.stdout
