"""Effects, noise floor, targets and verdicts against numbers worked out by hand."""

import math

import pytest

from optaware.records import Interval
from optaware.report import AblationRun, CurvePoint
from optaware.report._ablation_runs import target_loss, to_target
from optaware.report._ablation_stats import Effect, NoiseFloor, correct_together, effect, noise_floor, paired_t, verdict


def _runs(values, *, first=0, state="done", name="accuracy"):
    return [AblationRun(f"r{seed}", seed, state, {name: value}) for seed, value in enumerate(values, first)]


def test_paired_t_by_hand():
    # Differences 1, 2, 3: mean 2, s 1, t = 2√3 = 3.4641 with 2 degrees; p = 1 − t/√(t² + 2) = 0.0742.
    assert paired_t([1.0, 2.0, 3.0]) == pytest.approx(1 - math.sqrt(12 / 14), abs=1e-12)
    assert paired_t([0.0, 0.0]) == 1.0


def test_an_effect_over_seeds_by_hand():
    item = effect(_runs([2.0, 4.0, 6.0], name="score"), _runs([1.0, 2.0, 3.0], name="score"), "score")
    assert item.difference is not None
    assert item.difference.estimate == pytest.approx(2.0)
    half = 4.302652729911275 / math.sqrt(3)  # t(97.5 %, 2 degrees) · s/√n
    assert item.difference.high == pytest.approx(2 + half)
    assert item.p_value == pytest.approx(0.07417990022744858)
    assert item.seeds == (0, 1, 2)


def test_only_seeds_that_both_have_are_paired():
    item = effect(_runs([2.0, 4.0, 9.0], name="score"), _runs([1.0, 2.0], first=1, name="score"), "score")
    assert item.seeds == (1, 2)
    assert item.difference is not None
    assert item.difference.estimate == pytest.approx((3 + 7) / 2)


def test_equal_numbers_of_all_seeds_give_no_p_value():
    item = effect(_runs([2.0, 2.0], name="score"), _runs([1.0, 1.0], name="score"), "score")
    assert item.p_value is None
    assert "does the seed reach the run" in item.note


def test_rows_decide_when_they_are_known():
    def run(seed, right):
        rows = {str(index): int(index < right) for index in range(200)}
        return AblationRun(f"r{seed}", seed, "done", {"accuracy": right / 200}, rows)

    item = effect([run(0, 180), run(1, 182)], [run(0, 120), run(1, 122)], "accuracy")
    assert item.difference is not None
    assert item.difference.estimate == pytest.approx(0.3)
    assert "bootstrap" in item.difference.method
    assert item.p_value is not None
    assert item.p_value < 0.001


def test_the_noise_floor_by_hand():
    base, further = _runs([0.6, 0.7]), _runs([0.8, 0.9], first=2)
    floor = noise_floor(base, further, AblationRun("r0", 0, "done", {"accuracy": 0.55}), "accuracy")
    spread = math.sqrt((0.15**2 + 0.05**2) * 2 / 3)
    assert floor.spread == pytest.approx(spread)
    assert floor.size == pytest.approx(3.182446305284263 * spread)  # t(97.5 %, 3 degrees) · s · √(2/2)
    assert floor.between == pytest.approx(0.2)
    assert floor.repeated == pytest.approx(0.05)
    assert noise_floor(_runs([0.6]), [], None, "accuracy").size is None


def test_failed_runs_count_for_nothing_and_diverged_ones_do():
    failed = _runs([0.6], state="failed")
    assert effect(failed, _runs([0.5]), "accuracy").difference is None
    assert noise_floor(_runs([0.6, 0.7], state="diverged"), [], None, "accuracy").runs == 2


def test_holm_over_the_plan():
    items = [Effect(None, p, "", (0,)) for p in (0.01, 0.04, None, 0.03)]
    assert [item.p_corrected for item in correct_together(items)] == pytest.approx([0.03, 0.06, None, 0.06])


@pytest.mark.parametrize(
    ("low", "high", "p", "floor", "smallest", "said"),
    [
        (0.03, 0.07, 0.001, 0.02, 0.02, "matters"),
        (-0.07, -0.03, 0.001, 0.02, 0.02, "matters"),
        (0.03, 0.07, 0.001, 0.06, 0.02, "inconclusive"),  # below the noise floor
        (0.03, 0.07, 0.06, 0.02, 0.02, "inconclusive"),  # not after correction
        (-0.01, 0.07, 0.001, 0.02, 0.02, "inconclusive"),
        (-0.01, 0.015, 0.5, 0.02, 0.02, "does not matter"),
        (0.005, 0.015, 0.001, 0.002, 0.02, "does not matter"),  # there, but smaller than what would matter
        (-0.01, 0.015, 0.5, 0.02, None, "inconclusive"),
        (-0.01, 0.025, 0.5, 0.02, 0.02, "inconclusive"),
    ],
)
def test_verdicts(low, high, p, floor, smallest, said):
    difference = Interval(estimate=(low + high) / 2, low=low, high=high, method="")
    item = Effect(difference, p, "", (0, 1, 2), p_corrected=p)
    assert verdict(item, NoiseFloor(floor, 0.01, 6, 0.0, 0.0), smallest) == said
    single = Effect(difference, p, "", (0,), p_corrected=p)
    assert verdict(single, NoiseFloor(floor, 0.01, 6, 0.0, 0.0), smallest) == "inconclusive"


def test_the_convergence_target_and_who_reaches_it():
    def run(*losses):
        curve = tuple(CurvePoint(step, 2 * step, loss, None) for step, loss in enumerate(losses, 1))
        return AblationRun("r", 0, "done", {}, curve=curve)

    base = [run(0.9, 0.5, 0.6), run(0.8, 0.3, 0.4)]
    target = target_loss(1.0, base, 0.9)
    assert target == pytest.approx(1.0 - 0.9 * (1.0 - 0.4))
    assert to_target(base[0], target) is None
    point = to_target(base[1], target)
    assert point is not None
    assert (point.step, point.forwards) == (2, 4)
    assert target_loss(0.2, base, 0.9) is None  # the baseline never got below the untrained model
