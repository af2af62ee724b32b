"""Which packages are shipped, as pyproject.toml says."""

import tomllib
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PYPROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]
PATTERNS = PYPROJECT["tool"]["setuptools"]["packages"]["find"]["include"]
PACKAGES = sorted(path.parent.name for path in ROOT.glob("*/__init__.py")
                  if any(fnmatch(path.parent.name, pattern) for pattern in PATTERNS))  # fmt: skip
