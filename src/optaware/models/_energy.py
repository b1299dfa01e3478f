"""How much energy a run took, by the counters of the device that it ran on; what these do not tell is unknown."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any, Literal, Protocol

from optaware._io import read_json, write_json
from optaware.errors import InputError
from optaware.records import Energy

__all__ = ["Counter", "CounterError", "EnergyMeter", "NvmlCounter", "RaplCounter"]

Source = Literal["nvml", "rapl"]
_TICK_S = 30.0
"""RAPL's counters overflow after minutes at full load; they are read this often."""
_OWN_SHARE = 0.9
"""Share of the machine's processor time that must be this process's for the processors' energy to be its own."""


class CounterError(Exception):
    """A counter cannot be read, or what it counts is not this process's; the message says why."""


class Counter(Protocol):
    """A device's own energy counter."""

    source: Source

    def joules(self) -> float:
        """Joules since the counter was made.

        Raises:
            CounterError: It cannot be read.
        """
        ...

    def check_alone(self) -> None:
        """Make sure that what was counted is this process's.

        Raises:
            CounterError: Others used the device as well.
        """
        ...


class NvmlCounter:
    """The counter of one NVIDIA board (`nvmlDeviceGetTotalEnergyConsumption`, millijoules; Volta and later).

    It counts the board, GPU and memory, without the host, and whoever uses it. So the run must be alone on it.

    Args:
        uuid: The board's, as torch gives it.
        nvml: The module `pynvml` of nvidia-ml-py.
    """

    source: Source = "nvml"

    def __init__(self, uuid: str, nvml: Any) -> None:
        self._nvml = nvml
        try:
            nvml.nvmlInit()
            self._handle = nvml.nvmlDeviceGetHandleByUUID(uuid if uuid.startswith("GPU-") else f"GPU-{uuid}")
        except nvml.NVMLError as error:
            raise CounterError(f"NVML does not find the GPU ({error})") from error
        self._began = self._millijoules()

    def _millijoules(self) -> float:
        try:
            return float(self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle))
        except self._nvml.NVMLError as error:
            raise CounterError(f"the GPU has no energy counter that can be read ({error})") from error

    def joules(self) -> float:
        """See `Counter.joules`."""
        return (self._millijoules() - self._began) / 1000

    def check_alone(self) -> None:
        """See `Counter.check_alone`. Processes are counted, not named: in a container their ids are not this one's."""
        import torch

        try:
            found = len(self._nvml.nvmlDeviceGetComputeRunningProcesses(self._handle))
        except self._nvml.NVMLError as error:
            raise CounterError(f"NVML does not tell who else uses the GPU ({error})") from error
        if found > (1 if torch.cuda.is_initialized() else 0):  # type: ignore[no-untyped-call]
            raise CounterError("other processes used the GPU too")


class RaplCounter:
    """The counters of the processor packages (RAPL), as Linux shows them in `/sys/class/powercap`.

    They count all that the processors do, without main memory on most machines. So nearly all processor time of the
    machine must have been the run's.

    Args:
        root: Where the counters lie.
        proc: Where `stat` lies, which says how busy the machine was.
    """

    source: Source = "rapl"

    def __init__(self, root: Path = Path("/sys/class/powercap"), proc: Path = Path("/proc")) -> None:
        self._zones = [zone for zone in sorted(root.glob("intel-rapl:*")) if _is_package(zone)]
        self._proc = proc
        if not self._zones:
            raise CounterError("the processor shows no energy counter")
        self._last = self._microjoules()
        self._spent = 0.0
        self._busy, self._own = self._busy_s(), time.process_time()

    def _microjoules(self) -> list[int]:
        try:
            return [int((zone / "energy_uj").read_text("ascii")) for zone in self._zones]
        except (OSError, ValueError) as error:
            raise CounterError(f"the processor's energy counter cannot be read ({type(error).__name__})") from error

    def joules(self) -> float:
        """See `Counter.joules`."""
        now = self._microjoules()
        for zone, before, after in zip(self._zones, self._last, now, strict=True):
            turned = int((zone / "max_energy_range_uj").read_text("ascii")) if after < before else 0
            self._spent += (after - before + turned) / 1e6
        self._last = now
        return self._spent

    def _busy_s(self) -> float:
        try:
            fields = (self._proc / "stat").read_text("ascii").splitlines()[0].split()[1:]
        except (OSError, IndexError) as error:
            raise CounterError("the system does not tell how busy it was") from error
        user, nice, system, _, _, irq, softirq = (int(field) for field in fields[:7])
        return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")

    def check_alone(self) -> None:
        """See `Counter.check_alone`."""
        busy, own = self._busy_s() - self._busy, time.process_time() - self._own
        if busy > 1.0 and own < _OWN_SHARE * busy:
            raise CounterError(f"other work used the processors too ({100 * (1 - own / busy):.0f} % of the busy time)")


def _is_package(zone: Path) -> bool:
    try:
        return (zone / "name").read_text("ascii").startswith("package")
    except OSError:
        return False


class EnergyMeter:
    """Adds up a run's energy over its sessions, in a file of its folder.

    Each session begins with `start` and ends with `stop`. One that was killed has taken its energy with it: the run's
    is then unknown for good, with that as the reason. Nothing is estimated.

    Args:
        path: The file, `energy.json`.
        device: As in the run's spec: `auto`, `cpu`, or a device as torch names it.
        began: Whether the run has made steps before, so that without a file their energy is lost.
        counter: The counter; None: the device's own.
    """

    def __init__(self, path: Path, device: str, *, began: bool, counter: Counter | None = None) -> None:
        self._path, self._device, self._given = path, device, counter
        self._before, self._why = self._earlier(began)
        self._counter: Counter | None = None
        self._next = 0.0

    def _earlier(self, began: bool) -> tuple[float, str]:
        if not self._path.exists():
            return 0.0, "it was not measured when the run began" if began else ""
        try:
            noted = read_json(self._path)
        except InputError:
            return 0.0, "the file with what it had taken before has lost bytes"
        if noted["open"]:
            return 0.0, "the run was killed once, and what it had taken was not written down"
        return float(noted["joules"] or 0.0), str(noted["why"])

    def start(self) -> None:
        """Begin a session."""
        if not self._why:
            try:
                self._counter = self._given or _counter_of(self._device)
                self._counter.check_alone()
            except CounterError as error:
                self._why = str(error)
        self._write(still_open=not self._why)

    def tick(self) -> None:
        """Read the counter now and then, so that it cannot overflow unseen; costs a look at the clock otherwise."""
        if self._counter is not None and not self._why and time.monotonic() >= self._next:
            self._next = time.monotonic() + _TICK_S
            self._read()

    def _read(self) -> float:
        if self._counter is None or self._why:
            return 0.0
        try:
            return self._counter.joules()
        except CounterError as error:
            self._why = str(error)
            return 0.0

    def stop(self) -> Energy:
        """End the session and tell what the run has taken so far."""
        spent = self._read()
        if self._counter is not None and not self._why:
            try:
                self._counter.check_alone()
            except CounterError as error:
                self._why = str(error)
        self._before += spent
        self._write(still_open=False)
        if self._why:
            return Energy(joules=None, source=None, why=self._why)
        return Energy(joules=self._before, source=self._counter.source if self._counter else None)

    def _write(self, *, still_open: bool) -> None:
        joules = None if self._why else self._before
        write_json(self._path, {"joules": joules, "why": self._why, "open": still_open})


def _counter_of(device: str) -> Counter:
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise CounterError("several processes shared the run")
    import torch

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu":
        return RaplCounter()
    if not device.startswith("cuda"):
        raise CounterError(f"there is no counter for device {device}")
    try:
        import pynvml
    except ImportError as error:
        raise CounterError("nvidia-ml-py is not installed (pip install 'optaware[energy]')") from error
    try:
        properties = torch.cuda.get_device_properties(torch.device(device))
    except (RuntimeError, AssertionError) as error:  # loading the model will say what is wrong with the device
        raise CounterError(f"device {device} cannot be used") from error
    return NvmlCounter(str(properties.uuid), pynvml)
