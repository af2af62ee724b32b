import subprocess
import sys

JOIN = """
from pipelines.config import RayConfig
from pipelines.errors import UserError
from pipelines.session import ray_session
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
