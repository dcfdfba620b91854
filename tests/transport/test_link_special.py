"""Task vectors over the uplink: special links, what must not matter, and what is refused."""

import ctypes
from pathlib import Path

import numpy as np
import pytest
import torch

from rmtllmf_lib.errors import InputError
from rmtllmf_lib.model.task_vector import TaskVector
from rmtllmf_lib.transport.digital import Coded, Pcm, RawFloat
from rmtllmf_lib.transport.link import Link, send
from rmtllmf_lib.transport.scheme import Scheme
from rmtllmf_lib.transport.schemes import Analog
from rmtllmf_lib.wireless.channel import Uplink
from rmtllmf_lib.wireless.receiver import lmmse_error_cov
from sending import deviations, generator, normalised, vectors
from wireless import complex_normal, unit_uplink


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(22)


def test_nothing_arrives_of_a_silent_user(rng: np.random.Generator) -> None:
    """Zeros, not NaN, whatever the scheme; the others do not notice."""
    loud = unit_uplink(rng)
    uplink = Uplink(loud.H, loud.power * [1, 0, 1, 1e-40], loud.noise_floor)
    taus = vectors(4, 3000)
    for options in ({}, {"cancellation": "soft"}, {"receiver": "lmmse"}, {"cancellation": "hard"}):
        for scheme in ("analog-mmse", "analog-unbiased", "pam8"):
            if "hard" in options.values() and scheme != "pam8":
                continue
            received = send(taus, Link(uplink, uplink.thermal_cov, **options), scheme, generator=generator())
            assert received.taus[1].norm == received.taus[3].norm == 0
            assert received.statistics.table.variance[[1, 3]].tolist() == pytest.approx([1, 1], rel=1e-6)
            assert received.statistics.table.predicted[[1, 3]].tolist() == [1, 1]
            assert received.taus[0].norm > 0 and received.taus[2].norm > 0


def test_no_noise_gives_the_vector_itself(rng: np.random.Generator) -> None:
    for uplink in (unit_uplink(rng), unit_uplink(rng, users=1, rx=1)):
        size = uplink.num_rx_antennas
        taus = vectors(uplink.num_users, 1000)
        for options in ({}, {"cancellation": "soft"}, {"receiver": "lmmse"}):
            received = send(taus, Link(uplink, np.zeros((size, size)), **options), generator=generator())
            np.testing.assert_allclose(normalised(received.taus, taus), normalised(taus, taus), atol=1e-5)
            assert received.statistics.table.symbol_mse_predicted.max() < 1e-20


def test_bits_of_numbers_larger_than_one_do_not_overflow(rng: np.random.Generator) -> None:
    """A wrong exponent bit makes a number near the largest of float32, which no factor above one may multiply."""
    uplink = unit_uplink(rng)
    taus = vectors(4, 20_000, scale=2.0)
    received = send(taus, Link(uplink, uplink.thermal_cov), RawFloat(), generator=generator())
    small = send(vectors(4, 20_000, scale=0.01), Link(uplink, uplink.thermal_cov), RawFloat(), generator=generator())
    assert all(bool(tau.values.isfinite().all()) for tau in received.taus)
    assert (received.statistics.table.lost > small.statistics.table.lost).all()
    assert np.isfinite(received.statistics.table.variance).all()


def test_more_users_than_antennas_and_singular_noise(rng: np.random.Generator) -> None:
    many = unit_uplink(rng, rx=2, users=5)
    received = send(vectors(5, 100_000), Link(many, many.thermal_cov), generator=generator())
    assert np.abs(deviations(received)).max() < 3
    few = unit_uplink(rng)
    factor = complex_normal(rng, 6, 2)
    for receiver in ("sic", "lmmse"):
        link = Link(few, 5 * factor @ factor.conj().T, receiver=receiver)
        received = send(vectors(4, 50_000), link, generator=generator())
        finite = received.statistics.table.predicted > 1e-12
        assert np.abs(deviations(received)[finite]).max(initial=0) < 3
        assert received.statistics.table.variance[~finite].max() < 1e-9
    joint = lmmse_error_cov(few, link.noise_cov)
    np.testing.assert_allclose(link.symbol_mse(), np.einsum("ii->i", joint).real, rtol=1e-12)


def test_a_zero_vector_stays_zero(rng: np.random.Generator) -> None:
    uplink = unit_uplink(rng)
    taus = vectors(4, 100)
    taus[2] = taus[2] * 0
    received = send(taus, Link(uplink, uplink.thermal_cov), generator=generator())
    assert received.taus[2].norm == 0
    assert received.statistics.table.variance.isna().tolist() == [False, False, True, False]


# --- what must not matter


def test_same_generator_same_bits(rng: np.random.Generator) -> None:
    uplink = unit_uplink(rng)
    taus = vectors(4, 5000)
    link = Link(uplink, uplink.thermal_cov)
    one, same, other = (send(taus, link, generator=generator(seed)).taus for seed in (1, 1, 2))
    assert all(torch.equal(a.values, b.values) for a, b in zip(one, same, strict=True))
    assert not any(torch.equal(a.values, b.values) for a, b in zip(one, other, strict=True))
    draws = generator(1)
    first, second = (send(taus, link, generator=draws).taus for _ in range(2))
    assert torch.equal(first[0].values, one[0].values) and not torch.equal(second[0].values, one[0].values)


@pytest.mark.parametrize("cancellation", ["genie", "soft"])
@pytest.mark.parametrize("scheme", ["analog-mmse", "pam8"])
def test_neither_block_size_nor_threads_matter(rng: np.random.Generator, cancellation: str, scheme: str) -> None:
    uplink = unit_uplink(rng)
    taus = vectors(4, 20_003)
    link = Link(uplink, uplink.thermal_cov, cancellation=cancellation)
    threads = torch.get_num_threads()
    results = []
    try:
        for block, count in ((2**16, 1), (1000, 1), (50, 1), (2**16, 2), (2**12, 3)):
            torch.set_num_threads(count)
            results.append(send(taus, link, scheme, generator=generator(), block=block))
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        for a, b in zip(results[0].taus, other.taus, strict=True):
            assert torch.equal(a.values, b.values)
        np.testing.assert_allclose(other.statistics.table, results[0].statistics.table, rtol=1e-9)


@pytest.mark.parametrize(("scheme", "n"), [(Pcm(), 3000), (Coded(iterations=2), 12_500)])
def test_threads_share_a_digital_scheme(rng: np.random.Generator, scheme: Scheme, n: int) -> None:
    """Its modulators and decoders are built once and used by several threads, with three blocks or more."""
    uplink = unit_uplink(rng, users=2, floor=0.05)
    taus = vectors(2, n)
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            link = Link(uplink, uplink.thermal_cov, cancellation="hard")
            results.append(send(taus, link, scheme, generator=generator(), block=1).taus)
            assert torch.get_num_threads() == count
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(a.values, b.values) for a, b in zip(*results, strict=True))


def test_a_failing_scheme_leaves_the_threads_as_they_were(rng: np.random.Generator) -> None:
    class Failing(Analog):
        def modulate(self, x: torch.Tensor, user: int = 0) -> torch.Tensor:
            if len(x) > 2:
                raise RuntimeError("out of ink")
            return super().modulate(x, user)

    uplink = unit_uplink(rng)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        with pytest.raises(RuntimeError, match="out of ink"):
            send(vectors(4, 1000), Link(uplink, uplink.thermal_cov), Failing(), generator=generator(), block=16)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(threads)


def test_noise_is_the_same_for_every_receiver(rng: np.random.Generator) -> None:
    """So receivers can be compared on one noise: for one user all of them are one."""
    uplink = unit_uplink(rng, users=1)
    taus = vectors(1, 1000)
    options = [{}, {"receiver": "lmmse"}, {"order": "strongest-first"}, {"cancellation": "soft"}]
    found = [send(taus, Link(uplink, uplink.thermal_cov, **kind), generator=generator()).taus[0] for kind in options]
    for other in found[1:]:
        np.testing.assert_allclose(other.values, found[0].values, rtol=1e-5, atol=1e-8)


def test_what_is_kept(rng: np.random.Generator) -> None:
    """Layout, base and information; the vectors that were sent are left alone, unless their memory is to be used."""
    uplink = unit_uplink(rng)
    taus = vectors(4, 1000)
    before = [tau.values.clone() for tau in taus]
    link = Link(uplink, uplink.thermal_cov)
    plain = send(taus, link, generator=generator())
    for tau, was, arrived in zip(taus, before, plain.taus, strict=True):
        assert torch.equal(tau.values, was)
        assert arrived.layout is tau.layout and arrived.base_hash == "base" and arrived.info == tau.info
    spent = send(taus, link, generator=generator(), out=[tau.values for tau in taus])
    for tau, arrived, wanted in zip(taus, spent.taus, plain.taus, strict=True):
        assert arrived.values.data_ptr() == tau.values.data_ptr()
        assert torch.equal(arrived.values, wanted.values) and arrived.norm == wanted.norm
    np.testing.assert_array_equal(spent.statistics.table, plain.statistics.table)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="resets the peak of memory in /proc")
def test_memory_does_not_grow_with_the_vector(rng: np.random.Generator) -> None:
    """Four vectors of 8 MB each, in place: beyond them only what the small ones need too."""
    uplink, needed = unit_uplink(rng), []
    for n in (100_000, 100_000, 2_000_000):  # the first one also builds what is built once
        taus = vectors(4, n)
        ctypes.CDLL(None).malloc_trim(0)  # freed memory that is still held would hide what is needed
        before = _megabytes("VmRSS")
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # peak := current
        link, out = Link(uplink, uplink.thermal_cov), [tau.values for tau in taus]
        send(taus, link, generator=generator(), block=2**13, out=out)
        needed.append(_megabytes("VmHWM") - before)
    _, small, large = needed
    assert large < small + 6 and large < 26  # MB, of 32


def _megabytes(field: str) -> float:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split(field + ":")[1].split()[0]) / 1024


def test_progress_is_shown_when_asked_for(rng: np.random.Generator, capsys: pytest.CaptureFixture) -> None:
    uplink = unit_uplink(rng)
    send(vectors(4, 100), Link(uplink, uplink.thermal_cov), generator=generator())
    assert capsys.readouterr().err == ""
    send(vectors(4, 100), Link(uplink, uplink.thermal_cov), generator=generator(), progress=True)
    assert "sending" in capsys.readouterr().err


# --- bad input


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"noise_cov": np.eye(3)}, r"noise_cov has shape \(3, 3\)"),
        ({"noise_cov": np.triu(np.ones((6, 6)))}, "noise_cov is not Hermitian"),
        ({"noise_cov": -np.eye(6)}, "noise_cov is indefinite"),
        ({"noise_cov": np.full((6, 6), np.nan)}, "noise_cov holds NaN"),
        ({"noise_cov": np.ones((2, 6, 6))}, r"noise_cov has shape \(2, 6, 6\)"),
        ({"design_cov": np.eye(2)}, "design_cov has shape"),
        ({"order": "random"}, "order is 'random'"),
        ({"receiver": "zf"}, "receiver is 'zf'"),
        ({"cancellation": "perfect"}, "cancellation is 'perfect'"),
        ({"uplink": np.eye(6)}, "uplink is a ndarray"),
    ],
)
def test_bad_links(rng: np.random.Generator, options: dict, message: str) -> None:
    uplink = unit_uplink(rng)
    with pytest.raises(InputError, match=message):
        Link(**{"uplink": uplink, "noise_cov": uplink.thermal_cov, **options})


def test_bad_vectors(rng: np.random.Generator) -> None:
    uplink = unit_uplink(rng)
    link = Link(uplink, uplink.thermal_cov)
    taus = vectors(4, 100)
    short = vectors(1, 99)[0]
    foreign = TaskVector(taus[0].layout, taus[0].values, "other")
    calls: list[tuple[object, dict, str]] = [
        (taus[:3], {}, "got 3 task vectors for an uplink of 4 users"),
        ([], {}, "got no task vector"),
        ([*taus[:3], short], {}, "task vector 3"),
        ([*taus[:3], foreign], {}, "task vector 3 belongs to another base"),
        (taus, {"scheme": "morse"}, "scheme is 'morse'"),
        (taus, {"block": 0}, "block is 0"),
        (taus, {"out": []}, "out has 0 tensors for 4 task vectors"),
        (taus, {"out": [torch.empty(3)] * 4}, r"out has a torch.float32 tensor of shape \(3,\)"),
        (taus, {"out": [torch.empty(100).double()] * 4}, "out has a torch.float64 tensor"),
        (taus, {"out": [*torch.empty(100, 4).T]}, "out has a strided tensor or one with a gradient"),
        (taus, {"out": [torch.empty(100, requires_grad=True)] * 4}, "out has a strided tensor or one with a gradient"),
        (taus, {"out": [torch.empty(100)] * 4}, "out has the same tensor for two users"),
        (taus, {"scheme": RawFloat("keep")}, "non_finite is 'keep', and a task vector cannot hold NaN"),
    ]
    for given, options, message in calls:
        with pytest.raises(InputError, match=message):
            send(given, link, **{"generator": generator(), **options})  # type: ignore[arg-type]
    draws = generator()
    with pytest.raises(InputError, match="cancellation is 'hard' for analog symbols"):
        send(taus, Link(uplink, uplink.thermal_cov, cancellation="hard"), Analog(), generator=draws)
    assert torch.equal(draws.get_state(), generator().get_state())  # before anything was drawn


def test_a_link_is_a_copy(rng: np.random.Generator) -> None:
    uplink = unit_uplink(rng, 2)
    C = np.eye(6)
    link = Link(uplink, C)
    C *= 5
    assert (
        link.noise_cov.shape == (2, 6, 6) and link.noise_cov.max() == 1 and link.effective_design_cov is link.noise_cov
    )
    with pytest.raises(ValueError, match="read-only"):
        link.noise_cov[0, 0, 0] = 2
