"""Two processes (gloo, CPU) come to the bits of one."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from optaware.train import Ranks
from optaware.train._digest import weights_digest
from optaware.train.directions import Dense
from optaware.train.distributed import shared_losses

WORKER = Path(__file__).with_name("ranks_worker.py")
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "TOKENIZERS_PARALLELISM": "false"}


def launch(*command: str, processes: int = 2) -> subprocess.CompletedProcess[str]:
    run = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", *command]
    environment = {key: value for key, value in os.environ.items() if key not in ("RANK", "WORLD_SIZE")}
    return subprocess.run(run, env=environment | ENVIRONMENT, capture_output=True, text=True, check=False)


def worker() -> Any:
    spec = importlib.util.spec_from_file_location("ranks_worker", WORKER)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_two_processes_come_to_the_bits_of_one(tiny_model_dir: Path, tmp_path: Path) -> None:
    done = launch(str(WORKER), str(tiny_model_dir), str(tmp_path))
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = (json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in (0, 1))
    alone = worker().scenarios(str(tiny_model_dir), tmp_path, 0, 1)
    for name in ("queries", "one query", "halves", "data", "trainer"):
        assert first[name] == second[name], f"{name}: the two processes hold different weights"
        assert first[name] == alone[name], f"{name}: two processes and one come to different weights"
    assert len({alone[name] for name in ("queries", "one query", "halves", "data", "trainer")}) == 5
    state = torch.load(tmp_path / "half2.pt", weights_only=True)
    assert state["optimizer"]["zeroth_order"]["processes"] == 2
    assert worker().second_half(str(tiny_model_dir), state) == alone["halves"], "one process goes on where two stopped"
    for journals in (("queries1.bin", "queries2.bin"), ("trainer1/journal.bin", "trainer2/journal.bin")):
        one, two = ((tmp_path / name).read_bytes() for name in journals)
        assert one == two, "two processes keep the journal of one"
    assert [path.name for path in (tmp_path / "trainer2").iterdir()] == ["journal.bin"]
    for words in (first["differing"], second["differing"]):
        assert "seed" in words
        assert "weights" in words
        assert "ranks-differ" in words


def test_a_process_that_is_lost_is_told_of(tiny_model_dir: Path, tmp_path: Path) -> None:
    launch(str(WORKER), str(tiny_model_dir), str(tmp_path), "lose")
    name, words = json.loads((tmp_path / "lost.json").read_text())
    assert name == "RankError"
    assert "rank-lost" in words
    assert "resumes" in words


def test_shares_are_blocks_that_cover_everything() -> None:
    ranks = Ranks()
    assert (ranks.size, ranks.first, list(ranks.share(5))) == (1, True, [0, 1, 2, 3, 4])
    for size in (2, 3, 8):
        ranks.size = size
        dealt = []
        for rank in range(size):
            ranks.rank = rank
            dealt += list(ranks.share(5))
        assert dealt == [0, 1, 2, 3, 4]


class Meanwhile(Ranks):
    """Ranks of one process, one after the other: an exchange gives what the others have said before."""

    def __init__(self, rank: int, size: int, said: list[list[float]]) -> None:
        super().__init__()
        self.rank, self.size, self._said = rank, size, said

    def joint(self, values: Sequence[float], counts: Sequence[int]) -> list[float]:
        assert len(values) == counts[self.rank]
        self._said.append(list(values))
        return [value for each in self._said for value in each]


@pytest.mark.parametrize("most", [1, 2, 4])
@pytest.mark.parametrize("size", [2, 3, 4])
@pytest.mark.filterwarnings("ignore:.* processes share")
def test_a_forward_pass_holds_the_same_points_whatever_the_number_of_processes(most: int, size: int) -> None:
    points = [(seed, sign) for seed in range(3) for sign in (1.0, -1.0)]
    passes: list[tuple[tuple[int, float], ...]] = []

    class Noted:
        supports_batch = True

        @contextmanager
        def batched(self, points: Sequence[tuple[int, float]]) -> Iterator[None]:
            passes.append(tuple(points))
            yield

        def at(self, seed: int, scale: float) -> AbstractContextManager[None]:
            return self.batched([(seed, scale)])

    class Loss:
        most_copies = most

        def __call__(self) -> float:
            return self.copies(1)[0]

        def copies(self, count: int) -> list[float]:
            assert count == len(passes[-1])
            return [10 * seed + sign for seed, sign in passes[-1]]

    direction: Any = Noted()
    alone = shared_losses(Ranks(), direction, Loss(), points)
    whole, passes[:] = tuple(passes), []
    said: list[list[float]] = []
    for rank in range(size):
        losses = shared_losses(Meanwhile(rank, size, said), direction, Loss(), points)
    assert tuple(passes) == whole
    assert losses == alone == [10 * seed + sign for seed, sign in points]


def test_processes_without_a_forward_pass_are_told_of() -> None:
    direction: Any = Dense(nn.Linear(2, 2))
    with pytest.warns(UserWarning, match=r"3 processes share 2 forward passes.*more queries"):
        shared_losses(Meanwhile(0, 3, []), direction, lambda: 1.0, [(0, 1.0), (0, -1.0)])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_a_digest_sees_one_bit_a_swap_and_a_name(dtype: torch.dtype) -> None:
    weights = {name: each.detach().to(dtype) for name, each in nn.Linear(7, 5).named_parameters()}
    digest = weights_digest(weights)
    assert digest == weights_digest({name: each.clone() for name, each in reversed(weights.items())})
    changed = {name: each.clone() for name, each in weights.items()}
    changed["weight"].view(torch.uint8)[-1, -1] ^= 1
    assert digest != weights_digest(changed)
    swapped = {name: each.clone() for name, each in weights.items()}
    swapped["weight"][0], swapped["weight"][1] = weights["weight"][1], weights["weight"][0]
    assert digest != weights_digest(swapped)
    assert digest != weights_digest({name + "x": each for name, each in weights.items()})
