"""The environment that every process of a Ray on this machine inherits. Set before Ray is imported; imports no Ray."""

from __future__ import annotations

import logging
import os
import secrets
from pathlib import Path

# How long threads spin at a barrier before they sleep. For ever, OpenMP's own way, they steal the cores of whoever they
# wait for: 2 to 10 times slower on a busy machine. Not at all: 1.4 times slower on a quiet one. See docs/training.md
WORKER_ENVIRONMENT = {"GOMP_SPINCOUNT": "2000"}


def set_up_local() -> None:
    """Set what the processes of a local Ray inherit.

    Given as a runtime environment, each worker would be a process of a kind of its own, of which none is ready.
    """
    os.environ.update({name: os.environ.get(name, value) for name, value in WORKER_ENVIRONMENT.items()})
    os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")  # nobody takes this machine away
    os.environ.setdefault("RAY_idle_worker_killing_time_threshold_ms", "10000")  # what stands is used; Ray's own: 1 s
    # its node looks for the object store that it starts itself, mostly too early, and looks again after this time: 1 s
    os.environ.setdefault("RAY_raylet_client_connect_timeout_milliseconds", "50")
    os.environ.setdefault("RAY_raylet_client_num_connect_attempts", "400")
    _bring_a_token()


def _bring_a_token() -> None:
    """Give the local cluster a token of its own, unless the user has one or has set RAY_AUTH_MODE.

    A new local cluster asks for a token whatever this machine ran before, provided that RAY_AUTH_MODE is unset when
    Ray is imported; brought by the environment it stays in this process tree instead of ~/.ray/auth_token.
    """
    logging.getLogger("ray._private.authentication.authentication_token_setup").setLevel(logging.ERROR)
    known = Path("~/.ray/auth_token").expanduser().is_file() or "RAY_AUTH_TOKEN_PATH" in os.environ
    if "RAY_AUTH_MODE" not in os.environ and not known:
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
