"""Protections: clean embeddings, the parts and inputs of each one, and optimal weights."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch

from rmtllmf_lib.errors import InputError
from rmtllmf_lib.fusion.arithmetic import fuse, lambda_n
from rmtllmf_lib.fusion.mergers import MERGERS, merge, merger_named
from rmtllmf_lib.fusion.tsv import tsv_merge
from rmtllmf_lib.model.layout import group_of
from rmtllmf_lib.model.task_vector import Weights
from rmtllmf_lib.protection.embeddings import EMBEDDING_KINDS, reload_embeddings
from rmtllmf_lib.protection.memory import draw_memory
from rmtllmf_lib.protection.realign import memory_loss, realign
from rmtllmf_lib.protection.resilience import (
    PROTECTIONS,
    VECTORS_ALONE,
    Station,
    protect,
    protection_named,
    search_lambda,
    wiener_weights,
)
from rmtllmf_lib.seeds import generator_for
from rmtllmf_lib.study.study import Study
from rmtllmf_lib.training.finetune import Recipe
from rmtllmf_lib.transport.scenario import Scenario
from small import small_backbone, small_head, small_task, small_tau
from vectors import BASE, vector


def test_embeddings_are_the_bases_and_the_rest_is_untouched() -> None:
    base = small_backbone(layers=2).weights
    fused = fuse(base, [small_tau(base, seed) for seed in (1, 2)], 0.5)
    before = fused.values.clone()
    protected = reload_embeddings(fused, base)
    kinds = set()
    for name, tensor in protected.state_dict().items():
        clean = group_of(name) == "embeddings"
        kinds.add(clean)
        assert torch.equal(tensor, (base if clean else fused).state_dict()[name])
        assert not torch.equal(tensor, (fused if clean else base).state_dict()[name])
    assert kinds == {True, False}
    assert torch.equal(fused.values, before)  # the argument is not changed
    assert protected.origin == fused.origin == base.hash
    assert reload_embeddings(protected, base).hash == protected.hash


def test_nothing_changes_where_embeddings_were_frozen() -> None:
    fused = BASE + vector(1).without("embeddings")
    assert reload_embeddings(fused, BASE).hash == fused.hash
    assert reload_embeddings(BASE, BASE).hash == BASE.hash


def test_another_base_is_refused() -> None:
    fused = BASE + vector(1)
    other = Weights(BASE.layout, BASE.values + 1)
    with pytest.raises(InputError, match=f"{BASE.hash[:12]}.*expected {other.hash[:12]}"):
        reload_embeddings(fused, other)
    with pytest.raises(InputError, match="the fused weights"):
        reload_embeddings(fused, small_backbone(layers=1).weights)


# --- single embeddings ------------------------------------------------------------------------------------------------

TENSORS = {
    "position": "visual.positional_embedding",
    "patch": "visual.conv1.weight",
    "class": "visual.class_embedding",
}


@pytest.mark.parametrize("kinds", [("position",), ("patch",), ("class",), ("class", "patch"), ()])
def test_embeddings_one_by_one(kinds: tuple[str, ...]) -> None:
    base = small_backbone(layers=1).weights
    fused = fuse(base, [small_tau(base, 1)], 0.5)
    protected = reload_embeddings(fused, base, kinds).state_dict()
    clean = {TENSORS[kind] for kind in kinds}
    for name, tensor in protected.items():
        assert torch.equal(tensor, (base if name in clean else fused).state_dict()[name])


def test_unknown_embeddings_are_refused() -> None:
    with pytest.raises(InputError, match="'word'.*position, patch, class"):
        reload_embeddings(BASE, BASE, ("patch", "word"))


# --- protections ------------------------------------------------------------------------------------------------------

QUICK = Recipe(steps=2, batch_size=6, lr=1e-3)
LAM = 0.4


@pytest.fixture(scope="module")
def station() -> Station:
    backbone = small_backbone(layers=2)
    tasks = {name: small_task(name, seed) for seed, name in enumerate(("a", "b", "c"))}
    taus = [small_tau(backbone.weights, seed, task=name) for seed, name in enumerate(tasks)]
    scenario = Scenario("noisy", (0.01, 0.1, 0.05), "weight", "half")
    received = scenario.receive(taus, backbone.weights, generator=torch.Generator().manual_seed(1000))
    memory = draw_memory(tasks, 2, image_size=32, generator=torch.Generator().manual_seed(4))
    heads = {name: small_head(seed) for seed, name in enumerate(tasks)}
    arrived = dict(zip(tasks, received, strict=True))
    return Station(
        backbone, arrived, LAM, heads, memory, scenario.error_cov(taus, backbone.weights), QUICK, seed=5
    )  # fmt: skip


def trained_on(station: Station, start: Weights, names: Sequence[str], freeze: tuple[str, ...]) -> Weights:
    generator = torch.Generator().manual_seed(station.seed)
    assert station.memory is not None
    recipe, memory = replace(QUICK, freeze=freeze), station.memory.of(names)
    return realign(station.backbone, start, memory, station.heads, recipe, generator=generator)


def trained(station: Station, start: Weights, freeze: tuple[str, ...]) -> str:
    return trained_on(station, start, list(station.received), freeze).hash


def test_protections_are_made_of_their_parts(station: Station) -> None:
    base, taus = station.backbone.weights, list(station.received.values())
    fused = fuse(base, taus, LAM)
    reloaded = reload_embeddings(fused, base)
    frozen = ("embeddings",)
    lam = search_lambda(station)
    searched = reload_embeddings(fuse(base, taus, lam), base)
    weights = LAM * wiener_weights(taus, station.error_cov)
    shrunk = reload_embeddings(fuse(base, taus, weights), base)
    merged = base + LAM * tsv_merge(taus)
    own = [trained_on(station, base, [name], frozen) - base for name in "abc"]
    few_shot = base + LAM * tsv_merge(own)
    expected = {
        "unprotected": fused.hash,
        "freeze": reloaded.hash,
        "realign": trained(station, fused, ()),
        "reload-train-all": trained(station, reloaded, ()),
        "rmtllmf": trained(station, reloaded, frozen),
        "noise-aware-lambda": searched.hash,
        "noise-aware": trained(station, searched, frozen),
        "wiener-lambda": shrunk.hash,
        "wiener": trained(station, shrunk, frozen),
        "coded-tsv": merged.hash,
        "coded-tsv-realigned": trained(station, merged, frozen),
        "base": base.hash,
        "control": trained(station, base, frozen),
        "few-shot-specialists": trained(station, few_shot, frozen),
    }
    for kind in EMBEDDING_KINDS:
        part = reload_embeddings(fused, base, (kind,))
        expected |= {f"freeze-{kind}": part.hash, f"rmtllmf-{kind}": trained(station, part, frozen)}
    assert len(set(expected.values())) == len(expected)
    expected["few-shot-basis"] = expected["coded-tsv-realigned"]  # they differ in what is received
    for name in VECTORS_ALONE:
        model = base + LAM * merge(name, taus, generator=generator_for(station.seed, 1))
        clean = reload_embeddings(model, base)
        expected |= {f"merge-{name}": model.hash, f"merge-{name}-realigned": trained(station, clean, frozen)}
    found = {name: protect(name, station) for name in PROTECTIONS}
    assert {name: each.weights.hash for name, each in found.items()} == expected
    assert found["noise-aware"].lam == lam and found["rmtllmf"].lam == LAM and found["control"].lam == 0
    assert found["coded-tsv"].lam == LAM
    assert found["wiener"].lam == pytest.approx(weights.mean())
    assert found["few-shot-specialists"].lam == LAM
    assert protect("few-shot-specialists", station, realigned=False).weights.hash == few_shot.hash


# Those of mergers are made in one way: two stand for all of them.
OF_EVERY_KIND = [name for name in PROTECTIONS if name in ("merge-ties", "merge-tsv-realigned") or "merge-" not in name]
FEW_SHOT = ("few-shot-specialists", "few-shot-basis")  # with a specialist of each task, trained on its memory


@pytest.mark.parametrize("name", OF_EVERY_KIND)
def test_the_registry_knows_what_each_one_uses(station: Station, name: str) -> None:
    """Inputs that it does not use have no effect; the budget counts what was used."""
    protection = PROTECTIONS[name]
    usual = protect(name, station)
    taus = {task: 2 * tau for task, tau in station.received.items()}
    other_link = protect(name, replace(station, received=taus)).weights.hash
    assert (other_link != usual.weights.hash) == protection.receives
    if protection.remembers:
        with pytest.raises(InputError, match="memory"):
            protect(name, replace(station, memory=None))
    else:
        assert protect(name, replace(station, memory=None)).weights.hash == usual.weights.hash
    longer = protect(name, replace(station, recipe=replace(QUICK, steps=3)))
    assert (longer.weights.hash != usual.weights.hash) == protection.trains
    assert station.memory is not None
    assert usual.samples == (station.memory.samples if protection.remembers else 0)
    assert usual.bytes == (station.memory.bytes if protection.remembers else 0)
    runs = dict.fromkeys(FEW_SHOT, 4).get(name, int(protection.trains))  # one for each task, and the realignment
    assert (usual.steps, longer.steps) == (2 * runs, 3 * runs)
    assert usual.seconds > 0
    other_lam = protect(name, replace(station, lam=1.1 * LAM))
    assert (other_lam.weights.hash != usual.weights.hash) == protection.scales
    merged_by_tsv = name in FEW_SHOT or protection.sends is not None
    merger = name.removeprefix("merge-").removesuffix("-realigned")
    suggested = merger_named(merger).suggested_lambda(3) if merger in VECTORS_ALONE else lambda_n(3)
    assert protection.published_lam(3) == (1 if merged_by_tsv else suggested)


@pytest.mark.parametrize("name", OF_EVERY_KIND)
def test_before_realignment(station: Station, name: str) -> None:
    """What the others start from: no more training, and no memory that it takes no part in."""
    untrained = {"rmtllmf": "freeze", "noise-aware": "noise-aware-lambda", "control": "base", "realign": "unprotected"}
    untrained |= {"coded-tsv-realigned": "coded-tsv"}
    protection, before = PROTECTIONS[name], protect(name, station, realigned=False)
    if same := untrained.get(name):
        assert before.weights.hash == protect(same, station).weights.hash
    assert (before.weights.hash != protect(name, station).weights.hash) == protection.trains
    assert (before.samples > 0) == protection.starts_from_memory
    assert before.steps == (6 if name in FEW_SHOT else 0)
    if not protection.starts_from_memory:
        assert protect(name, replace(station, memory=None), realigned=False).weights.hash == before.weights.hash


def test_only_the_memory_of_the_fused_tasks_is_used(station: Station) -> None:
    pair = replace(station, received={name: station.received[name] for name in ("a", "c")}, error_cov=None)
    assert station.memory is not None
    forgetful = replace(pair, memory=station.memory.of(["c", "a"]))
    for name in ("control", "rmtllmf", "noise-aware"):
        one, two = protect(name, pair), protect(name, forgetful)
        assert one.weights.hash == two.weights.hash and one.samples == 20


def test_users_in_outage_are_left_out_and_remembered(station: Station) -> None:
    arrived = {name: station.received[name] for name in ("a", "b")}
    lost = replace(station, received=arrived, outage=("c",), error_cov=None)
    merged = station.backbone.weights + LAM * tsv_merge(list(arrived.values()))
    assert protect("coded-tsv", lost).weights.hash == merged.hash
    realigned = protect("coded-tsv-realigned", lost)
    assert realigned.weights.hash == trained(station, merged, ("embeddings",))
    assert station.memory is not None and realigned.samples == station.memory.samples
    with pytest.raises(InputError, match="all users are in outage, a, b"):
        protect("coded-tsv", replace(station, received={}, outage=("a", "b"), error_cov=None))


def test_unknown_protections_are_refused(station: Station) -> None:
    with pytest.raises(InputError, match="'prayer'"):
        protect("prayer", station)


def test_mergers_that_need_the_vectors_alone_are_protections() -> None:
    plain = {name for name, merger in MERGERS.items() if not merger.needs} | {"dare", "dare-ties"}
    assert {*VECTORS_ALONE} == {*plain, "arithmetic+svc", "arithmetic+lines"}
    merging = {name for name in PROTECTIONS if name.startswith("merge-")}
    assert merging == {f"merge-{name}{end}" for name in VECTORS_ALONE for end in ("", "-realigned")}
    assert len({each.title for each in PROTECTIONS.values()}) == len(PROTECTIONS)


@pytest.mark.parametrize("name", ["merge-dare", "merge-dare-ties-realigned"])
def test_mergers_that_draw_take_the_seed_of_the_station(station: Station, name: str) -> None:
    assert PROTECTIONS[name].draws and not PROTECTIONS["merge-ties"].draws
    one, again, other = (protect(name, replace(station, seed=seed), realigned=False).weights.hash for seed in (5, 5, 6))
    assert one == again != other


@pytest.mark.parametrize(
    "name, says",
    [
        ("merge-tvs", "did you mean 'tsv'"),
        ("merge-regmean", "'regmean' needs grams.*merge_suite"),
        ("merge-emr", "'emr' needs task"),
        ("merge-tsv+lines", r"'tsv\+lines' is not one of those"),
        ("merge-mine.py:own", "'mine.py:own' is not one of those"),
    ],
)
def test_mergers_that_need_more_are_refused(name: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        protection_named(name)
    with pytest.raises(InputError, match=says):
        Study((Scenario("noisy", 0.1),), (name,))
    with pytest.raises(InputError, match=says):
        Study((Scenario("noisy", 0.1),), ("merge-tsv",), lam_grid={name: (0.5, 1.0)})


# --- our own ----------------------------------------------------------------------------------------------------------


def test_the_search_takes_the_lambda_with_the_smallest_loss(station: Station) -> None:
    base, parts = station.backbone.weights, (0.0, 0.3, 0.6, 1.0)
    assert station.memory is not None
    losses = {}
    for part in parts:
        model = reload_embeddings(fuse(base, list(station.received.values()), part * LAM), base)
        losses[part * LAM] = memory_loss(station.backbone, model, station.memory, station.heads)
    assert search_lambda(station, parts) == min(losses, key=losses.__getitem__)
    assert len({round(loss, 6) for loss in losses.values()}) == len(parts)


def test_the_search_flees_from_ruined_models(station: Station) -> None:
    ruined = {name: 1e25 * tau for name, tau in station.received.items()}
    assert search_lambda(replace(station, received=ruined)) == 0


@pytest.mark.parametrize("correlation", ["independent", "half", "common"])
def test_wiener_weights_are_the_best_linear_ones(correlation: str) -> None:
    """Against the least-squares fit to the sent vectors."""
    base = small_backbone().weights
    sizes = (0.01, 0.02, 0.04)
    taus = [small_tau(base, seed, size).without("embeddings") for seed, size in enumerate(sizes)]
    scenario = Scenario("a", (0.05, 0.3, 0.002), "weight", correlation)
    received = scenario.receive(taus, base, generator=torch.Generator().manual_seed(77))
    found = wiener_weights(received, scenario.error_cov(taus, base))
    target = sum(tau.values.double() for tau in taus)
    rows = torch.stack([tau.without("embeddings").values.double() for tau in received], 1)
    oracle = torch.linalg.lstsq(rows, target[:, None]).solution[:, 0].numpy()
    np.testing.assert_allclose(found, oracle, atol=0.04)

    def error(weights: np.ndarray) -> float:
        return float((rows @ torch.as_tensor(weights) - target).square().mean())

    assert error(found) < 1.01 * error(oracle) < error(np.ones(3))


def test_wiener_weights_of_equal_users() -> None:
    base = small_backbone().weights
    taus = [small_tau(base, seed, 0.02).without("embeddings") for seed in range(3)]
    scenario = Scenario("a", 0.5, "task")
    received = scenario.receive(taus, base, generator=torch.Generator().manual_seed(77))
    np.testing.assert_allclose(wiener_weights(received, scenario.error_cov(taus, base)), 1 / 1.5, atol=0.02)
    assert wiener_weights(taus, np.zeros((3, 3))).tolist() == [1, 1, 1]


def test_wiener_weights_without_a_known_covariance(station: Station) -> None:
    with pytest.raises(InputError, match="error_cov"):
        protect("wiener", replace(station, error_cov=None))
    with pytest.raises(InputError, match=r"error_cov .*\(2, 2\).*\(3, 3\)"):
        wiener_weights(list(station.received.values()), np.eye(2))


@pytest.mark.parametrize(
    "error_cov",
    [
        np.full((2, 2), np.nan),
        np.diag([1.0, np.inf]),
        np.diag([1.0, -0.5]),  # negative
        np.array([[1.0, 2.0], [2.0, 1.0]]),  # indefinite
        np.array([[1.0, 0.5], [0.1, 1.0]]),  # asymmetric
        np.eye(2) * (1 + 1j),
        "text",
        None,
    ],
)
def test_wiener_weights_want_a_covariance(error_cov: np.ndarray) -> None:
    taus = [small_tau(small_backbone(layers=1).weights, seed) for seed in (1, 2)]
    with pytest.raises(InputError, match="error_cov"):
        wiener_weights(taus, error_cov)


def test_wiener_weights_accept_rounding_in_a_singular_covariance() -> None:
    taus = [small_tau(small_backbone(layers=1).weights, seed) for seed in (1, 2)]
    common = np.full((2, 2), 1e-4)
    common[0, 1] *= 1 + 1e-9
    np.testing.assert_allclose(wiener_weights(taus, common), wiener_weights(taus, np.full((2, 2), 1e-4)), rtol=1e-6)


def test_embeddings_are_named_once() -> None:
    for kinds in ("patch", ["patch", "patch"], ["colour"]):
        with pytest.raises(InputError, match="kind"):
            reload_embeddings(BASE, BASE, kinds)
