"""Path loss: published values, continuity, spread, validity."""

import numpy as np
import pytest

from rmtllmf_lib.errors import InputError
from rmtllmf_lib.wireless.path_loss import PathLoss, cell_db, free_space_db, line_of_sight_probability, log_distance_db


def test_free_space() -> None:
    assert free_space_db(1000.0, 2.4e9) == pytest.approx(100.05, abs=0.01)  # 32.44 + 20 log10(2400 MHz) + 0 (1 km)
    np.testing.assert_allclose(np.diff(free_space_db([100, 1000, 10000], 9e8)), 20)
    np.testing.assert_allclose(log_distance_db([7, 70], 1e9, 2), free_space_db([7, 70], 1e9))
    assert log_distance_db(1000.0, 1e9, 3.5, 10.0) == pytest.approx(free_space_db(10.0, 1e9) + 70)


@pytest.mark.parametrize(
    "cell, clear, distance, expected",
    [
        # table 7.4.1-1 by hand at 2 GHz and a height of 1.5 m; breakpoints at 320 m (UMa) and 120 m (UMi)
        ("UMa", True, 100.0, 28 + 22 * np.log10(np.hypot(100, 23.5)) + 20 * np.log10(2)),
        (
            "UMa",
            True,
            1000.0,
            28 + 40 * np.log10(np.hypot(1000, 23.5)) + 20 * np.log10(2) - 9 * np.log10(320**2 + 23.5**2),
        ),
        ("UMa", False, 1000.0, 13.54 + 39.08 * np.log10(np.hypot(1000, 23.5)) + 20 * np.log10(2)),
        ("UMi", True, 100.0, 32.4 + 21 * np.log10(np.hypot(100, 8.5)) + 20 * np.log10(2)),
        (
            "UMi",
            True,
            1000.0,
            32.4 + 40 * np.log10(np.hypot(1000, 8.5)) + 20 * np.log10(2) - 9.5 * np.log10(120**2 + 8.5**2),
        ),
        ("UMi", False, 1000.0, 22.4 + 35.3 * np.log10(np.hypot(1000, 8.5)) + 21.3 * np.log10(2)),
    ],
)
def test_cells_follow_the_table(cell, clear: bool, distance: float, expected: float) -> None:
    assert cell_db(distance, 2e9, cell, line_of_sight=clear) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("cell", ["UMa", "UMi"])
def test_cells_are_continuous_and_blocked_users_lose_more(cell) -> None:
    edge = {"UMa": 320.0, "UMi": 120.0}[cell]
    before, after = cell_db([edge - 1e-6, edge + 1e-6], 2e9, cell, line_of_sight=True)
    assert after == pytest.approx(before, abs=1e-3)
    distance = np.geomspace(10, 5000, 200)
    clear, blocked = (cell_db(distance, 2e9, cell, line_of_sight=sight) for sight in (True, False))
    assert (np.diff(clear) > 0).all() and (blocked >= clear).all()
    higher = cell_db(distance, 2e9, cell, line_of_sight=False, user_height_m=10.0)
    assert (higher <= blocked).all()


def test_probability_of_a_line_of_sight() -> None:
    assert line_of_sight_probability([1.0, 18.0], "UMi").tolist() == [1, 1]
    assert line_of_sight_probability(100.0, "UMa") == pytest.approx(0.18 + np.exp(-100 / 63) * 0.82)
    assert line_of_sight_probability(100.0, "UMi") == pytest.approx(0.18 + np.exp(-100 / 36) * 0.82)


def test_draws() -> None:
    rng = np.random.default_rng(0)
    state = rng.bit_generator.state
    np.testing.assert_array_equal(PathLoss().draw_db([10.0], rng), free_space_db([10.0], 2.4e9))
    assert rng.bit_generator.state == state
    distance = np.full(20000, 200.0)
    for model, spread in (("UMa-LoS", 4), ("UMa-NLoS", 6), ("UMi-LoS", 4), ("UMi-NLoS", 7.82)):
        loss = PathLoss(model).draw_db(distance, rng)  # type: ignore[arg-type]
        mean = cell_db(200.0, 2.4e9, model[:3], line_of_sight="NLoS" not in model)  # type: ignore[arg-type]
        assert loss.std() == pytest.approx(spread, rel=0.03)
        assert loss.mean() == pytest.approx(mean, abs=0.25)
    mixed = PathLoss("UMi", shadowing_db=0).draw_db(distance, rng)
    levels = cell_db(np.full(2, 200.0), 2.4e9, "UMi", line_of_sight=np.array([True, False]))
    clear = np.isclose(mixed, levels[0])
    assert (clear | np.isclose(mixed, levels[1])).all()
    assert clear.mean() == pytest.approx(line_of_sight_probability(200.0, "UMi"), abs=0.01)
    assert PathLoss("log-distance", shadowing_db=5).draw_db(distance, rng).std() == pytest.approx(5, rel=0.03)


@pytest.mark.parametrize(
    "options, name",
    [
        ({"model": "Hata"}, "path loss model is 'Hata'.*'free-space'"),
        ({"carrier_hz": 0}, "carrier_hz"),
        ({"model": "UMa", "carrier_hz": 1e8}, "carrier_hz of UMa is 100000000"),
        ({"model": "log-distance", "exponent": 0}, "exponent"),
        ({"model": "log-distance", "reference_m": -1}, "reference_m"),
        ({"shadowing_db": -1}, "shadowing_db"),
        ({"model": "UMi", "user_height_m": 20}, "user_height_m of UMi is 20"),
    ],
)
def test_bad_models(options: dict, name: str) -> None:
    with pytest.raises(InputError, match=name):
        PathLoss(**options)


def test_bad_distances() -> None:
    for distance in (9.0, 5001.0):
        with pytest.raises(InputError, match=f"distance_m of UMa is {distance:g}"):
            cell_db(distance, 2e9, "UMa", line_of_sight=True)
    with pytest.raises(InputError, match="cell is 'RMa'"):
        cell_db(100.0, 2e9, "RMa", line_of_sight=True)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="cell is 'RMa'"):
        line_of_sight_probability(100.0, "RMa")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="distance_m"):
        free_space_db(0.0, 2e9)
