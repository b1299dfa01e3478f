"""A signal stops the job that hears it, and whoever runs that job in the same process."""

from __future__ import annotations

import os
import signal

import pytest

from optaware.study import stop_requests


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_within_a_job_stops_its_driver_too(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with stop_requests() as driver:
        with stop_requests() as first:
            assert not first()
        assert not driver()
        with stop_requests() as second:
            os.kill(os.getpid(), number)
            assert second()
        assert driver()  # it does not begin a third
    assert signal.getsignal(number) == before
    with stop_requests() as later:
        assert not later()
