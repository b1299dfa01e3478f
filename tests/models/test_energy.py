"""Energy is what a counter says, added up over sessions, or unknown with the reason; it is never guessed."""

import json
from types import SimpleNamespace

import pytest

from optaware.models import CounterError, EnergyMeter
from optaware.models._energy import NvmlCounter, RaplCounter, _counter_of
from optaware.records import Energy, RunResult


class FakeCounter:
    source = "nvml"

    def __init__(self, readings, alone=True):
        self.readings, self.alone = iter(readings), alone

    def joules(self):
        found = next(self.readings)
        if found is None:
            raise CounterError("the counter is gone")
        return found

    def check_alone(self):
        if not self.alone:
            raise CounterError("other processes used the GPU too")


def session(path, readings, **options):
    meter = EnergyMeter(path, "cpu", began=options.pop("began", False), counter=FakeCounter(readings, **options))
    meter.start()
    return meter


def test_sessions_add_up(tmp_path):
    path = tmp_path / "energy.json"
    assert session(path, [120.0]).stop() == Energy(joules=120.0, source="nvml")
    assert session(path, [30.5], began=True).stop() == Energy(joules=150.5, source="nvml")


def test_a_file_that_lost_bytes_makes_it_unknown_and_stops_no_run(tmp_path):
    path = tmp_path / "energy.json"
    session(path, [120.0]).stop()
    path.write_bytes(path.read_bytes()[:-9])
    found = session(path, [30.5], began=True).stop()
    assert found.joules is None
    assert "lost bytes" in found.why


def test_a_killed_session_makes_it_unknown_for_good(tmp_path):
    path = tmp_path / "energy.json"
    session(path, [1.0]).stop()
    session(path, [1.0], began=True)  # never stopped
    for _ in range(2):
        found = session(path, [1.0], began=True).stop()
        assert found.joules is None
        assert "killed" in found.why


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"readings": [1.0], "alone": False}, "other processes"),
        ({"readings": [None]}, "counter is gone"),
        ({"readings": [1.0], "began": True}, "not measured when the run began"),
    ],
)
def test_what_the_counter_does_not_tell_is_unknown(tmp_path, options, why):
    readings = options.pop("readings")
    found = session(tmp_path / "energy.json", readings, **options).stop()
    assert (found.joules, found.source) == (None, None)
    assert why in found.why
    assert json.loads((tmp_path / "energy.json").read_text())["joules"] is None


class NVMLError(Exception):
    pass


def fake_nvml(millijoules, processes=(1,)):
    def energy(handle):
        assert handle == "GPU-abc"
        if millijoules is None:
            raise NVMLError("Not Supported")
        return next(millijoules)

    return SimpleNamespace(
        NVMLError=NVMLError,
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByUUID=lambda uuid: uuid,
        nvmlDeviceGetTotalEnergyConsumption=energy,
        nvmlDeviceGetComputeRunningProcesses=lambda handle: list(processes),
    )


def test_nvml_counts_millijoules_of_the_board(monkeypatch):
    counter = NvmlCounter("abc", fake_nvml(iter([5_000_000, 5_360_000])))
    assert counter.joules() == 360.0
    monkeypatch.setattr("torch.cuda.is_initialized", lambda: True)
    counter.check_alone()
    monkeypatch.setattr("torch.cuda.is_initialized", lambda: False)
    with pytest.raises(CounterError, match="other processes"):
        counter.check_alone()
    with pytest.raises(CounterError, match="no energy counter"):
        NvmlCounter("abc", fake_nvml(None))


@pytest.fixture
def machine(tmp_path):
    """Two packages, a core zone that must not be counted twice, and an idle machine."""
    for name, label, value in (
        ("intel-rapl:0", "package-0", 1_000_000),
        ("intel-rapl:1", "package-1", 9_000_000),
        ("intel-rapl:0:0", "core", 5),
    ):
        zone = tmp_path / name
        zone.mkdir()
        (zone / "name").write_text(f"{label}\n", "ascii")
        (zone / "energy_uj").write_text(f"{value}\n", "ascii")
        (zone / "max_energy_range_uj").write_text("10000000\n", "ascii")
    (tmp_path / "stat").write_text("cpu  100 0 50 9999 10 0 0 0 0 0\n", "ascii")
    return tmp_path


def test_rapl_adds_packages_and_survives_an_overflow(machine):
    counter = RaplCounter(machine, machine)
    (machine / "intel-rapl:0/energy_uj").write_text("3000000", "ascii")
    (machine / "intel-rapl:1/energy_uj").write_text("500000", "ascii")  # from 9 over 10 to 0.5 joules
    assert counter.joules() == pytest.approx(2.0 + 1.5)
    counter.check_alone()
    (machine / "stat").write_text("cpu  90100 0 50 9999 10 0 0 0 0 0\n", "ascii")
    with pytest.raises(CounterError, match="other work used the processors"):
        counter.check_alone()


def test_a_machine_without_counters_says_so(tmp_path, monkeypatch):
    with pytest.raises(CounterError, match="shows no energy counter"):
        RaplCounter(tmp_path, tmp_path)
    with pytest.raises(CounterError, match="no counter for device meta"):
        _counter_of("meta")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(CounterError, match="several processes"):
        _counter_of("cpu")


def test_results_from_before_say_that_it_was_not_measured():
    assert RunResult.model_fields["energy"].default.joules is None
    assert "did not measure" in RunResult.model_fields["energy"].default.why
