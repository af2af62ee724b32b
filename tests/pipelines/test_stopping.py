"""A command that was told to stop ends so, whatever Ray's core made of the signal on its way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner

from jobs.commands import Commands
from pipelines import stopping


@pytest.fixture(autouse=True)
def _as_before(monkeypatch: pytest.MonkeyPatch) -> object:
    monkeypatch.setattr(stopping, "_came", [])
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("becomes", [None, KeyboardInterrupt, SystemError])
def test_sigterm_is_143_whatever_exception_it_comes_out_as(becomes: type[BaseException] | None) -> None:
    app = typer.Typer(cls=Commands)

    @app.command()
    def work() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except SystemExit:
            if becomes is None:
                raise
            raise becomes from None

    app.callback()(lambda: None)
    done = CliRunner().invoke(app, ["work"])
    assert (done.exit_code, done.output) == (143, "mind: terminated\n")


def test_ctrl_c_is_130_and_a_fault_is_itself() -> None:
    assert stopping.exit_code(KeyboardInterrupt()) == 130
    assert stopping.exit_code(ValueError()) is None


SWALLOWED = """
import os, signal, time, weakref
from pipelines.stopping import heed_sigterm
class Thing: pass
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored by what a shell starts in the background
heed_sigterm()
thing = Thing()
seen = weakref.ref(thing, lambda _: (os.kill(os.getpid(), signal.{name}), [0 for _ in range(100)]))
del thing
time.sleep(60)
"""


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 15), ("SIGINT", -signal.SIGINT)])
def test_a_signal_that_a_callback_swallowed_comes_again(name: str, code: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SWALLOWED.format(name=name)], capture_output=True, text=True, timeout=50
    )
    assert done.returncode == code
    assert "Exception ignored" not in done.stderr
