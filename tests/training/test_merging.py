"""What mergers need of images, against hooks, single gradients and finite differences."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from rmtllmf_lib.errors import InputError
from rmtllmf_lib.fusion.arithmetic import fuse
from rmtllmf_lib.fusion.mergers import MERGERS, merge
from rmtllmf_lib.fusion.scaling import depths
from rmtllmf_lib.training.evaluate import prepare
from rmtllmf_lib.training.loading import normalize
from rmtllmf_lib.training.merging import (
    fisher_diagonal,
    input_grams,
    learn_coefficients,
    merge_suite,
    training_sample,
)
from rmtllmf_lib.training.suite import Suite
from small import generator, small_backbone, small_head, small_split, small_task, small_tau

BACKBONE = small_backbone(layers=2)
TASKS = {name: small_task(name, seed, n=40) for seed, name in enumerate("ab")}
HEADS = {name: small_head(seed) for seed, name in enumerate("ab")}
TAUS = {name: small_tau(BACKBONE.weights, seed, 0.05, task=name) for seed, name in enumerate("ab", 1)}
SUITE = Suite(BACKBONE, TASKS, HEADS, TAUS)


def test_grams_are_what_open_clips_own_modules_see() -> None:
    split, weights = small_split(7), BACKBONE.weights + TAUS["a"]
    model = small_backbone(layers=2).model.visual
    weights.load_into(model)
    seen: dict[str, torch.Tensor] = {}

    def listen(name: str) -> object:
        def hook(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: object) -> None:
            x = inputs[0].detach().flatten(0, -2).double()
            seen[name] = x.T @ x

        return hook

    for name, module in model.named_modules():
        if name.endswith((".c_fc", ".c_proj")):
            module.register_forward_hook(listen(f"visual.{name}.weight"))
        elif name.endswith(".attn"):
            module.register_forward_hook(listen(f"visual.{name}.in_proj_weight"))
    model(normalize(split.inputs, BACKBONE))
    grams = input_grams(BACKBONE, weights, split)
    # after the last block only the class token is read, so there the two differ in what they compute at all
    first = [name for name in seen if "resblocks.0" in name or name.endswith("1.attn.in_proj_weight")]
    assert len(first) == 4
    for name in first:
        np.testing.assert_allclose(grams[name], seen[name], rtol=1e-4, atol=1e-3)
    matrices = {n for n, s in zip(weights.layout.names, weights.layout.shapes, strict=True) if len(s) == 2}
    assert grams.keys() == matrices - {"visual.positional_embedding"}
    assert grams["visual.proj"].shape == (64, 64)


def test_fisher_is_the_mean_square_of_single_gradients() -> None:
    split, head = small_split(3), HEADS["a"]
    weights = BACKBONE.weights + TAUS["a"]
    model = small_backbone(layers=2).model.visual.requires_grad_(True)
    weights.load_into(model)
    total = {name: torch.zeros_like(tensor) for name, tensor in model.named_parameters()}
    for image in normalize(split.inputs, BACKBONE):
        for label in range(5):
            model.zero_grad()
            logits = head.logit_scale * functional.normalize(model(image[None]), dim=-1) @ head.weight.T
            log_p = logits.log_softmax(-1)[0, label]
            log_p.backward()
            for name, tensor in model.named_parameters():
                total[name] += float(log_p.detach().exp()) * tensor.grad**2 / 3
    wanted = weights.layout.flatten({f"visual.{name}": tensor for name, tensor in total.items()})
    found = fisher_diagonal(BACKBONE, weights, split, head)
    assert float((found - wanted).norm() / wanted.norm()) < 2e-3  # but for the classes that are next to impossible
    assert float(found.min()) >= 0


@pytest.mark.parametrize("by_depth", [False, True])
@pytest.mark.parametrize("loss", ["entropy", "cross-entropy"])
def test_learning_lowers_its_loss(loss: str, by_depth: bool) -> None:
    splits = {name: task.train for name, task in TASKS.items()}

    def value(coefficients: np.ndarray) -> float:
        merged = fuse(BACKBONE.weights, [merge("few-shot", [*TAUS.values()], coefficients=coefficients)], 1.0)
        total = 0.0
        for name, split in splits.items():
            logits = prepare(BACKBONE, split).logits(merged, HEADS[name])
            log_p = logits.log_softmax(1)
            entropy = -(log_p.exp() * log_p).sum(1).mean()
            total += float(entropy if loss == "entropy" else functional.cross_entropy(logits, split.labels))
        return total

    options = {"loss": loss, "by_depth": by_depth, "steps": 25, "batch_size": 40, "lr": 0.02}
    c = learn_coefficients(BACKBONE, [*TAUS.values()], splits, HEADS, generator=generator(), **options)
    again = learn_coefficients(BACKBONE, [*TAUS.values()], splits, HEADS, generator=generator(), **options)
    assert np.array_equal(c, again) and c.min() >= 0 and c.max() <= 1
    assert c.shape == ((2, 1 + max(depths(BACKBONE.weights.layout).values())) if by_depth else (2,))
    assert value(c) < value(np.full_like(c, 0.3)) - 1e-3


def test_entropy_needs_no_labels() -> None:
    splits = {name: task.train for name, task in TASKS.items()}
    blind = {name: type(split)(split.inputs, torch.zeros_like(split.labels)) for name, split in splits.items()}
    options = {"steps": 3, "batch_size": 8, "lr": 0.05}
    one, other = (
        learn_coefficients(BACKBONE, [*TAUS.values()], given, HEADS, generator=generator(), **options)
        for given in (splits, blind)
    )
    assert np.array_equal(one, other)


@pytest.mark.parametrize("name", [*MERGERS, "arithmetic+svc"])
def test_a_suite_gives_every_merger_what_it_needs(name: str) -> None:
    splits = training_sample(SUITE, 10)
    settings = {"steps": 2} if "coefficients" in getattr(MERGERS.get(name), "needs", ()) else {}
    merged = merge_suite(SUITE, name, splits, generator=generator(), **settings)
    assert list(merged) == ["a", "b"]
    assert (merged["a"] is merged["b"]) == (name not in ("tall", "emr"))
    assert all(vector.base_hash == BACKBONE.weights.hash for vector in merged.values())
    if name == "emr":
        assert torch.equal(merged["b"].values, merge("emr", [*TAUS.values()], task=1).values)


def test_the_sample_is_of_the_training_images_alone() -> None:
    splits = training_sample(SUITE, 10)
    for name, split in splits.items():
        assert len(split) == 10 and split.labels.bincount().tolist() == [2] * 5
        train = {image.numpy().tobytes() for image in TASKS[name].train.inputs}
        assert all(image.numpy().tobytes() in train for image in split.inputs)
    assert len(training_sample(SUITE, 1000)["a"]) == 40


def test_refused() -> None:
    splits = training_sample(SUITE, 10)
    taus = [*TAUS.values()]
    with pytest.raises(InputError, match="loss is 'mse'"):
        learn_coefficients(BACKBONE, taus, splits, HEADS, loss="mse", generator=generator())
    with pytest.raises(InputError, match="expected a head for each"):
        learn_coefficients(BACKBONE, taus, splits, {"a": HEADS["a"]}, generator=generator())
    with pytest.raises(InputError, match="start is 1.5"):
        learn_coefficients(BACKBONE, taus, splits, HEADS, start=1.5, generator=generator())
    with pytest.raises(InputError, match="needs inputs of b"):
        merge_suite(SUITE, "fisher", {"a": splits["a"]}, generator=generator())
    with pytest.raises(InputError, match="the split is empty"):
        input_grams(BACKBONE, BACKBONE.weights, small_split(0))
