import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import unitary_group

from links import gaussian, link, rival
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.wireless.adversary import KINDS, Attack, attack
from rmtllmf_lib.wireless.allocation import allocate
from rmtllmf_lib.wireless.channel import Uplink
from rmtllmf_lib.wireless.receiver import interference_free_rates, sic_rates, sum_rate

SEEDS = st.integers(0, 2**32 - 1)
SIZES = [(1, 1), (3, 1), (1, 3), (4, 8), (8, 4), (16, 8)]
LARGEST = {
    "minimax": lambda uplink, cov: interference_free_rates(uplink, cov).max(axis=-1),
    "minimax-sic": lambda uplink, cov: sic_rates(uplink, cov).max(axis=-1),
}


def objective(kind: str, uplink: Uplink, cov: np.ndarray) -> np.ndarray:
    return LARGEST.get(kind, sum_rate)(uplink, cov)


def check_covariance(found: Attack, uplink: Uplink, budget: float, *, full: bool = True) -> None:
    C = found.noise_cov
    assert C.shape == (*uplink.batch_shape, uplink.num_rx_antennas, uplink.num_rx_antennas)
    np.testing.assert_array_equal(C, C.conj().swapaxes(-1, -2))
    jammer = np.linalg.eigvalsh(C - uplink.thermal_cov)
    assert jammer.min() >= -1e-12 * np.abs(C).max()
    used = jammer.sum(axis=-1)
    assert (used <= budget * (1 + 1e-9)).all()
    assert not full or (used >= budget * (1 - 1e-9)).all()


@pytest.mark.parametrize("floor", [0.0, 0.05])
@pytest.mark.parametrize(("antennas", "users"), SIZES)
@pytest.mark.parametrize("kind", KINDS)
def test_covariance_and_bounds(kind: str, antennas: int, users: int, floor: float) -> None:
    uplink = link(7, antennas, users, floor, batch=(2, 2))
    found = attack(uplink, 0.5, kind)
    check_covariance(found, uplink, 0.5)
    assert found.objective.shape == found.lower_bound.shape == (2, 2)
    assert (found.lower_bound <= found.objective).all()
    assert np.isfinite(found.lower_bound).all()
    if kind in ("sum-rate", "strongest-user"):
        np.testing.assert_allclose(found.objective, found.lower_bound, rtol=1e-12)
    if kind in LARGEST:
        assert (found.objective - found.lower_bound <= 1e-6 * found.objective).all()
    if kind != "strongest-user":
        np.testing.assert_allclose(found.objective, objective(kind, uplink, found.noise_cov), rtol=1e-9)
    alone = attack(uplink[1, 0], 0.5, kind)
    np.testing.assert_allclose(alone.objective, found.objective[1, 0], rtol=1e-6)


@settings(deadline=None, max_examples=25)
@given(SEEDS, st.sampled_from([(4, 3), (3, 5)]), st.sampled_from([0.0, 0.1]), st.sampled_from(["sum-rate", *LARGEST]))
def test_no_other_covariance_gets_below_the_bound(seed: int, size: tuple, floor: float, kind: str) -> None:
    uplink, generator = link(seed, *size, floor), np.random.default_rng(seed)
    found = attack(uplink, 0.7, kind)
    for rank in (None, None, 1):
        other = rival(generator, uplink, 0.7, rank)
        near = 0.99 * found.noise_cov + 0.01 * other
        for cov in (other, near):
            assert objective(kind, uplink, cov) >= found.lower_bound * (1 - 1e-9)


@settings(deadline=None, max_examples=25)
@given(SEEDS, st.sampled_from([(4, 3), (3, 5)]), st.sampled_from([0.0, 0.1]), st.sampled_from(["sum-rate", "minimax"]))
def test_full_power_is_the_users_best_answer(seed: int, size: tuple, floor: float, kind: str) -> None:
    """The other half of the saddle point."""
    uplink, generator = link(seed, *size, floor), np.random.default_rng(seed)
    found = attack(uplink, 0.7, kind)
    quiet = Uplink(uplink.H, uplink.power * generator.random(uplink.num_users), uplink.noise_floor)
    assert objective(kind, quiet, found.noise_cov) <= found.objective * (1 + 1e-9)


@pytest.mark.parametrize("floor", [0.0, 0.1])
def test_marginal_value_of_power(floor: float) -> None:
    uplink, power, step = link(3, 6, 4, floor), 0.4, 1e-4
    _, nu = allocate(np.linalg.svd(uplink.G, compute_uv=False) ** 2, power, floor)
    more, less = (attack(uplink, power * (1 + sign * step)).objective for sign in (1, -1))
    assert (more - less) / (2 * step * power) == pytest.approx(-nu, rel=1e-6)


@pytest.mark.parametrize("kind", ["sum-rate", "white", "minimax", "minimax-sic"])
def test_more_power_lowers_the_objective(kind: str) -> None:
    uplink = link(3, 6, 4, 0.1)
    rates = [float(attack(uplink, power, kind).objective) for power in (0, 1e-3, 1e-2, 0.1, 1, 10, 1e3)]
    assert (np.diff(rates) < 0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_rotation_of_antennas_and_order_of_users(kind: str) -> None:
    uplink = link(11, 5, 4, 0.1)
    turn = unitary_group.rvs(5, random_state=1)
    mixed = [2, 0, 3, 1]
    found = attack(uplink, 0.5, kind, gap=1e-8)
    turned = attack(Uplink(turn @ uplink.H[:, mixed], uplink.power[mixed], 0.1), 0.5, kind, gap=1e-8)
    assert turned.objective == pytest.approx(found.objective, rel=1e-7)
    tolerance = 1e-9 if kind not in LARGEST else 1e-3
    np.testing.assert_allclose(turned.noise_cov, turn @ found.noise_cov @ turn.conj().T, atol=tolerance)


@pytest.mark.parametrize("unit", [1e-20, 1e-9, 1e-3, 1e6])
@pytest.mark.parametrize("floor", [0.0, 0.05])
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "sum-rate-published"])
def test_unit_of_power_does_not_matter(kind: str, floor: float, unit: float) -> None:
    uplink = link(2, 6, 4, floor)
    scaled = Uplink(uplink.H, uplink.power * unit, floor * unit)
    found, other = attack(uplink, 0.5, kind), attack(scaled, 0.5 * unit, kind)
    tolerance = 1e-9 if kind in LARGEST else 1e-12
    np.testing.assert_allclose(other.objective, found.objective, rtol=tolerance)
    np.testing.assert_allclose(other.lower_bound, found.lower_bound, rtol=tolerance)
    np.testing.assert_allclose(other.noise_cov / unit, found.noise_cov, atol=1e-9)


def test_counting_the_power_twice_costs_much_of_the_attack() -> None:
    """At the paper's 0.1 mW the printed equation spreads the power almost as for vanishing signals."""
    uplink = Uplink(gaussian(np.random.default_rng(0), 200, 16, 8), 1e-4, 0.0)
    right, printed, white = (
        attack(uplink, 1e-6, kind).objective for kind in ("sum-rate", "sum-rate-published", "white")
    )
    assert (printed >= right).all()
    assert printed.mean() > right.mean() * 1.001


def test_strongest_user_attack_does_not_solve_the_minimax() -> None:
    uplink = link(0, 16, 8, 0.01, batch=(20,))
    published, true = attack(uplink, 1.0, "strongest-user"), attack(uplink, 1.0, "minimax")
    assert (interference_free_rates(uplink, published.noise_cov).max(axis=-1) > 1.05 * true.objective).mean() > 0.9
    bare = link(0, 16, 8, batch=(3,))
    rates = interference_free_rates(bare, attack(bare, 1.0, "strongest-user").noise_cov)
    strongest = bare.received_power.argmax(axis=-1)
    assert np.isfinite(rates[range(3), strongest]).all()
    assert np.isinf(rates).sum() == 3 * 7


def test_strongest_user_is_the_best_against_that_user() -> None:
    uplink, generator = link(4, 5, 3, 0.1), np.random.default_rng(4)
    found, user = attack(uplink, 0.8, "strongest-user"), int(uplink.received_power.argmax())
    assert found.objective == pytest.approx(np.log1p(uplink.received_power[user] / 0.9), rel=1e-12)
    for _ in range(20):
        assert interference_free_rates(uplink, rival(generator, uplink, 0.8))[user] > found.objective


def test_rank_one_is_the_worst_direction_for_the_sum_rate() -> None:
    uplink, generator = link(6, 4, 3, 0.2), np.random.default_rng(6)
    found = attack(uplink, 0.8, "rank-one")
    for _ in range(50):
        assert sum_rate(uplink, rival(generator, uplink, 0.8, rank=1)) >= found.objective


def test_sum_aligned_is_an_error_common_to_all_users() -> None:
    """A receiver that inverts the channel sees the same disturbance in every symbol."""
    uplink = link(8, 6, 4, 0.1)
    jammer = attack(uplink, 2.0, "sum-aligned").noise_cov - uplink.thermal_cov
    inverse = np.linalg.pinv(uplink.G)
    error = inverse @ jammer @ inverse.conj().T
    np.testing.assert_allclose(error, np.full((4, 4), error[0, 0]), rtol=1e-10)


def test_imperfect_knowledge_costs_the_adversary() -> None:
    uplink, generator = link(5, 8, 4, 0.05, batch=(10,)), np.random.default_rng(5)
    believed = Uplink(uplink.H + 0.5 * gaussian(generator, 10, 8, 4), uplink.power, uplink.noise_floor)
    for kind in ("sum-rate", *LARGEST):
        true, fooled = attack(uplink, 1.0, kind), attack(uplink, 1.0, kind, csi=believed)
        np.testing.assert_allclose(fooled.lower_bound, true.lower_bound)
        assert (fooled.objective > true.objective).all()
        np.testing.assert_allclose(fooled.objective, objective(kind, uplink, fooled.noise_cov))
        np.testing.assert_allclose(attack(uplink, 1.0, kind, csi=uplink).noise_cov, true.noise_cov)
    with pytest.raises(InputError, match="csi has H of shape"):
        attack(uplink, 1.0, csi=uplink[0])


@pytest.mark.parametrize("order", ["weakest-first", "strongest-first"])
def test_order_of_decoding(order: str) -> None:
    uplink = link(9, 4, 5, 0.05)
    found = attack(uplink, 0.5, "minimax-sic", order=order)
    assert found.objective == pytest.approx(sic_rates(uplink, found.noise_cov, order).max(), rel=1e-12)
    assert found.objective - found.lower_bound <= 1e-6 * found.objective


@pytest.mark.parametrize("kind", KINDS)
def test_no_power_leaves_the_thermal_noise(kind: str) -> None:
    uplink = link(1, 4, 3, 0.1, batch=(2,))
    found = attack(uplink, 0, kind)
    np.testing.assert_array_equal(found.noise_cov, uplink.thermal_cov)
    np.testing.assert_array_equal(found.objective, found.lower_bound)
    mixed = attack(uplink, [0, 0.5], kind)
    np.testing.assert_array_equal(mixed.noise_cov[0], uplink.thermal_cov[0])
    np.testing.assert_allclose(mixed.objective[1], attack(uplink[1], 0.5, kind).objective, rtol=1e-6)
    assert np.isinf(attack(link(1, 4, 3), 0, kind).objective)


@pytest.mark.parametrize("floor", [0.0, 0.1])
@pytest.mark.parametrize("kind", KINDS)
def test_silent_and_equal_users(kind: str, floor: float) -> None:
    H = np.eye(4, 3, dtype=complex)
    silent = Uplink(H * [1, 0, 1], [1.0, 1.0, 0.0], floor)
    found = attack(silent, 0.5, kind)
    check_covariance(found, silent, 0.5)
    expected = np.log1p(1 / (floor + (0.125 if kind == "white" else 0.5)))
    if kind != "sum-rate-published":
        assert found.objective == pytest.approx(expected, rel=1e-6)
    ties = Uplink(H, 1.0, floor)
    found = attack(ties, 0.5, kind)
    check_covariance(found, ties, 0.5)
    if kind in LARGEST:
        assert found.objective == pytest.approx(np.log1p(1 / (floor + 0.5 / 3)), rel=1e-6)
    nothing = attack(Uplink(0 * H, 1.0, 0.1), 0.5, kind)
    assert nothing.objective == nothing.lower_bound == 0


def test_strongest_of_equal_users_is_the_last_decoded() -> None:
    found = attack(Uplink(np.eye(3), 1.0, 0.0), 0.5, "strongest-user")
    np.testing.assert_allclose(np.diagonal(found.noise_cov).real, [0, 0, 0.5])


@pytest.mark.parametrize("kind", ["sum-rate", "minimax", "minimax-sic"])
def test_dependent_channels_without_a_floor(kind: str) -> None:
    """Two users from one direction, more users than directions: rank below both sizes."""
    generator = np.random.default_rng(3)
    uplink = Uplink(gaussian(generator, 5, 2) @ gaussian(generator, 2, 4), 1.0, 0.0)
    found = attack(uplink, 0.5, kind)
    assert np.isfinite(found.objective)
    assert found.objective - found.lower_bound <= 1e-6 * found.objective


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((-1.0,), {}, "power is -1"),
        ((np.nan,), {}, "power holds NaN"),
        ((1j,), {}, "power has dtype complex128"),
        (([1.0, 2.0],), {}, r"power has shape \(2,\): expected \(...\) = \(\)"),
        ((1.0, "blue"), {}, "kind is 'blue'.*'sum-rate'"),
        ((1.0,), {"order": "random"}, "order is 'random'"),
        ((1.0,), {"gap": 0.0}, "gap is 0"),
        ((1.0,), {"max_iterations": 0}, "max_iterations is 0"),
    ],
)
def test_bad_input(arguments: tuple, options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        attack(link(0, 3, 2), *arguments, **options)


@pytest.mark.parametrize("floor", [0.0, 0.1])
def test_bound_of_the_sum_rate_does_not_trust_the_allocation(floor: float, monkeypatch: pytest.MonkeyPatch) -> None:
    uplink = link(12, 6, 4, floor)
    best = attack(uplink, 0.5)
    monkeypatch.setattr(
        "rmtllmf_lib.wireless.adversary.allocate_unit_budget",
        lambda values, *_: (np.full_like(values, 1 / values.shape[-1]), None, 0),
    )
    poor = attack(uplink, 0.5)
    assert poor.objective > best.objective * 1.01
    assert poor.lower_bound < best.objective


# --- the range of double precision


@pytest.mark.parametrize("spread", [1e6, 1e9, 1e12, 1e16, 1e20])
@pytest.mark.parametrize("kind", ["minimax", "minimax-sic"])
def test_users_far_apart_in_power_have_a_finite_worst_case(kind: str, spread: float) -> None:
    """Orthogonal users without a noise floor: everybody's SINR is the sum of the received powers over the budget."""
    received = np.array([1, 1 / spread, 0.1, spread**-0.5])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = attack(Uplink(np.diag(np.sqrt(received)), 1.0, 0.0), 2.0, kind)
    assert float(found.objective) == pytest.approx(np.log1p(received.sum() / 2), rel=1e-6)
    assert 0 <= found.objective - found.lower_bound < 1e-6
    assert len(caught) == (spread >= 1e16 and (kind == "minimax-sic" or spread > 1e16))


@pytest.mark.parametrize(("size", "seed"), [((6, 4), 3), ((6, 4), 4), ((4, 8), 3)])
@pytest.mark.parametrize("spread", [1e9, 1e10])
@pytest.mark.filterwarnings("ignore:noise_cov of")
def test_general_users_far_apart_in_power(size: tuple[int, int], seed: int, spread: float) -> None:
    G = gaussian(np.random.default_rng(seed), *size)
    uplink = Uplink(G, np.logspace(0, -np.log10(spread), size[1]), 0.0)
    for kind in ("minimax", "minimax-sic"):
        found = attack(uplink, 1.0, kind)
        assert np.isfinite(found.objective)
        assert found.objective - found.lower_bound <= 1e-6 * found.objective


@pytest.mark.parametrize("kind", ["strongest-user", "sum-rate", "minimax", "rank-one"])
def test_a_floor_below_rounding_is_told(kind: str) -> None:
    uplink = link(3, 6, 4, 1e-15)
    with pytest.warns(UserWarning, match=r"noise_cov of 1 drops .* below 1e-13"):
        attack(uplink, 1.0, kind)
    attack(uplink, 1.0, "white")  # no eigenvalue is small here
    attack(uplink, 1e-3, kind)  # warnings are errors


@pytest.mark.parametrize("power", [1e-100, 1e-200, 1e-320])
@pytest.mark.parametrize("kind", KINDS)
def test_a_jammer_without_effect_leaves_the_thermal_noise(kind: str, power: float) -> None:
    uplink = link(3, 6, 4, 0.1, batch=(2,))
    found = attack(uplink, [power, 1.0], kind)
    np.testing.assert_array_equal(found.noise_cov[0], uplink[0].thermal_cov)
    quiet = attack(uplink, [0.0, 1.0], kind)
    np.testing.assert_array_equal(found.objective, quiet.objective)
    np.testing.assert_array_equal(found.lower_bound, quiet.lower_bound)


@pytest.mark.parametrize("power", [1e-145, 1e-200, 1e-320])
def test_a_budget_whose_squares_overflow_is_refused(power: float) -> None:
    for kind in ("sum-rate", "minimax-sic", "white"):
        with pytest.raises(InputError, match="power is .*expected 0, or at least"):
            attack(link(3, 6, 4), power, kind)
