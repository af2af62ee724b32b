"""A real Ray cluster of several nodes on this machine, with S3 and MLflow: ``python -m tests.cluster.testbed up``."""

from tests.cluster.testbed.bed import Testbed
from tests.cluster.testbed.state import DEFAULT_FOLDER, BedError

__all__ = ["DEFAULT_FOLDER", "BedError", "Testbed"]
