"""Pre-training: loss, captions, images, and the files of finished and failed runs."""

import hashlib
import json
import math
import platform
import re
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

import rmtllmf_lib.training.pretrain as module
from bases import write_base
from canvases import PLAIN, STILL
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.model.backbone import load_backbone
from rmtllmf_lib.storage.canonical import config_key
from rmtllmf_lib.tasks.base import TASK_NAMES
from rmtllmf_lib.tasks.embedded.draw import Canvas
from rmtllmf_lib.tasks.embedded.procedural import procedural_task
from rmtllmf_lib.training.loading import normalize
from rmtllmf_lib.training.pretrain import WORLD, Domain, PretrainRecipe, caption_batch, clip_loss, draw_pairs, pretrain

SHORT = PretrainRecipe(samples=4 * 32, pairs=64, batch_size=32, warmup_steps=2)
FEWEST = PretrainRecipe(samples=8, pairs=8, batch_size=8)
CONCEPTS = module.world_concepts()


# --- the loss ---------------------------------------------------------------------------------------------------------


def features(rows: int, seed: int, dimension: int = 8) -> Tensor:
    return functional.normalize(torch.randn(rows, dimension, generator=torch.Generator().manual_seed(seed)), dim=-1)


def slow_loss(image: Tensor, text: Tensor, targets: list[int], scale: float) -> float:
    """Every image must find its caption, every caption each of its images; both means, averaged."""
    logits = scale * image.double() @ text.double().T
    forward = [-math.log(float(logits[i].softmax(0)[t])) for i, t in enumerate(targets)]
    backward = []
    for caption in range(len(text)):
        own = [i for i, t in enumerate(targets) if t == caption]
        backward.append(np.mean([-math.log(float(logits[:, caption].softmax(0)[i])) for i in own]))
    return float(np.mean(forward) + np.mean(backward)) / 2


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=12), st.floats(1, 50), st.integers(0, 1000))
def test_loss_is_its_definition(captions: list[int], scale: float, seed: int) -> None:
    rows = {caption: k for k, caption in enumerate(dict.fromkeys(captions))}
    targets = [rows[caption] for caption in captions]
    image, text = features(len(targets), seed), features(len(rows), seed + 1)
    loss = clip_loss(image, text, torch.tensor(targets), torch.tensor(scale))
    assert float(loss) == pytest.approx(slow_loss(image, text, targets, scale), rel=1e-4, abs=1e-5)


def test_loss_without_equal_captions_is_open_clips() -> None:
    image, text, scale = features(9, 0).requires_grad_(), features(9, 1).requires_grad_(), torch.tensor(14.0)
    order = torch.randperm(9, generator=torch.Generator().manual_seed(2))
    ours = clip_loss(image, text, order, scale)
    theirs = open_clip.ClipLoss()(image, text[order], scale)
    torch.testing.assert_close(ours, theirs)
    mine = torch.autograd.grad(ours, (image, text))
    for gradient, expected in zip(mine, torch.autograd.grad(theirs, (image, text)), strict=True):
        torch.testing.assert_close(gradient, expected)


# --- captions ---------------------------------------------------------------------------------------------------------


def captioned(recipe: PretrainRecipe, which: Tensor, seed: int = 0) -> list[str]:
    captions, targets = caption_batch(which, recipe, np.random.default_rng(seed))
    assert len(set(captions)) == len(captions), "equal captions are one row"
    assert targets.shape == which.shape and targets.dtype == torch.int64
    assert sorted(set(targets.tolist())) == list(range(len(captions))), "each row is somebody's"
    return [captions[row] for row in targets]


def test_captions_name_what_is_seen_in_one_wording() -> None:
    which = torch.arange(2000) % len(CONCEPTS)
    for seed in range(3):
        said = captioned(replace(SHORT, wrong=0.0, generic=0.0), which, seed)
        assert len(set(said)) == len(CONCEPTS)  # one wording for all images of a concept
        for k, caption in zip(which.tolist(), said, strict=True):
            domain, name = CONCEPTS[k]
            assert caption in {wording.format(name) for wording in domain.captions}
    spoken = {captioned(replace(SHORT, wrong=0.0, generic=0.0), torch.tensor([0]), seed)[0] for seed in range(40)}
    assert spoken == {wording.format(CONCEPTS[0][1]) for wording in CONCEPTS[0][0].captions}


@pytest.mark.parametrize(("wrong", "generic"), [(0.1, 0.1), (0.3, 0.0), (0.0, 0.25), (0.5, 0.5), (1.0, 0.0)])
def test_shares_of_wrong_and_generic_captions(wrong: float, generic: float) -> None:
    """Within five standard deviations of a binomial distribution."""
    n = 6000
    which = torch.arange(n) % len(CONCEPTS)
    said = captioned(replace(SHORT, wrong=wrong, generic=generic), which, seed=1)
    right = careless = 0
    for k, caption in zip(which.tolist(), said, strict=True):
        domain, name = CONCEPTS[k]
        right += caption in {wording.format(name) for wording in domain.captions}
        careless += caption == domain.generic
    lucky = wrong / len(CONCEPTS)  # a caption drawn at random may be the right one
    for found, share in ((right, 1 - wrong - generic + lucky), (careless, generic)):
        assert abs(found - n * share) <= 5 * math.sqrt(n * max(share * (1 - share), 0)) + 1e-6


def test_captions_follow_the_generator() -> None:
    which = torch.arange(500) % len(CONCEPTS)
    assert captioned(SHORT, which, 3) == captioned(SHORT, which, 3) != captioned(SHORT, which, 4)


# --- images -----------------------------------------------------------------------------------------------------------


PAIRS = len(CONCEPTS) + 20


def test_pairs_depend_on_the_seed_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def drawn(seed: int, cores: int) -> Tensor:
        monkeypatch.setattr("os.cpu_count", lambda: cores)
        images, which = draw_pairs(PAIRS, seed)
        assert images.shape == (PAIRS, 3, 32, 32) and images.dtype == torch.uint8
        counts = torch.bincount(which, minlength=len(CONCEPTS))
        assert counts.max() - counts.min() <= 1 and len(counts) == len(CONCEPTS)
        return images

    first = drawn(0, cores=1)
    assert torch.equal(first, drawn(0, cores=4))
    assert not (first == drawn(1, cores=1)).flatten(1).all(1).any()


def test_each_pair_shows_its_concept(monkeypatch: pytest.MonkeyPatch) -> None:
    def grey(canvas: Canvas, level: int) -> None:
        canvas.fill((level / 255,) * 3)

    levels = {"dark": 10, "dim": 60, "pale": 150, "white": 240}
    named = {name: partial(grey, level=level) for name, level in levels.items()}
    halves = [dict(list(named.items())[:2]), dict(list(named.items())[2:])]
    world = tuple(Domain(half, STILL, ("a {}.",), "grey.") for half in halves)
    monkeypatch.setattr(module, "WORLD", world)
    monkeypatch.setattr(module, "_random_camera", lambda rng: PLAIN)
    images, which = draw_pairs(301, 0)  # several blocks of each
    shown = torch.tensor([*levels.values()])[which]
    assert torch.equal(images[:, 0, 5, 5].long(), shown)


def test_cameras_differ_from_block_to_block() -> None:
    cameras = [module._random_camera(np.random.default_rng(k)) for k in range(20)]
    assert len(set(cameras)) == 20
    assert cameras[3] == module._random_camera(np.random.default_rng(3))


# --- a run ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def quick() -> Iterator[None]:
    """Few test images for the zero-shot table; the global generator is restored."""
    with pytest.MonkeyPatch.context() as patch, torch.random.fork_rng():
        patch.setattr(module, "procedural_task", lambda name, **_: procedural_task(name, n_train=20, n_test=24))
        yield


def silent(text: str) -> None:
    pass


@pytest.fixture(scope="module")
def trained(quick: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pretrain(tmp_path_factory.mktemp("pretrained") / "base", SHORT, report=silent)


def digest(folder: Path) -> str:
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def test_a_run_writes_a_base(trained: Path) -> None:
    backbone = load_backbone(trained)
    assert {path.name for path in trained.iterdir()} == {"model.safetensors", "config.json", "provenance.json"}
    assert backbone.vocabulary == set(module.vocabulary())
    assert sum(p.numel() for p in backbone.model.parameters()) == 332_481
    shipped, own = (json.loads((folder / "config.json").read_text()) for folder in (module_assets(), trained))
    assert own == shipped  # the shipped base is what this code makes


def module_assets() -> Path:
    from rmtllmf_lib.model.backbone import ASSETS

    return ASSETS / "tiny"


def test_provenance_is_complete(trained: Path) -> None:
    provenance: dict[str, Any] = json.loads((trained / "provenance.json").read_text())
    assert provenance["sha256"] == digest(trained)
    assert provenance["config_sha256"] == config_key(json.loads((trained / "config.json").read_text()))
    images, _ = draw_pairs(SHORT.pairs, SHORT.seed)
    assert provenance["data_sha256"] == hashlib.sha256(images.numpy().tobytes()).hexdigest()
    recipe = provenance["recipe"]
    assert PretrainRecipe(**{**recipe, "betas": tuple(recipe["betas"])}) == SHORT
    for option in ("rmtllmf pretrain", "--seed 0", "--samples 128", "--pairs 64"):
        assert option in provenance["command"]
    assert provenance["versions"]["torch"] == torch.__version__ and provenance["versions"]["numpy"] == np.__version__
    assert provenance["versions"]["python"] == platform.python_version()
    assert provenance["versions"]["open_clip_torch"] == open_clip.__version__
    assert provenance["threads"] == torch.get_num_threads() and provenance["parameters"] == 332_481
    table = provenance["zero_shot_test_accuracy"]
    assert set(table) == {*TASK_NAMES, "mean"}
    assert table["mean"] == pytest.approx(np.mean([table[name] for name in TASK_NAMES]), abs=1e-4)


@pytest.mark.usefixtures("quick")
def test_the_same_seed_gives_the_same_base(trained: Path, tmp_path: Path) -> None:
    torch.manual_seed(99)  # whatever was drawn before
    assert digest(pretrain(tmp_path / "again", SHORT, report=silent)) == digest(trained)
    other = pretrain(tmp_path / "again", replace(SHORT, seed=1), report=silent)  # over the first one
    assert digest(other) != digest(trained)
    provenance = json.loads((other / "provenance.json").read_text())
    assert provenance["zero_shot_test_accuracy"] == module.zero_shot_table(other)
    assert load_backbone(other).weights.hash != load_backbone(trained).weights.hash


def test_training_learns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three scenes, and the model tells new pictures of them apart."""
    scenes = next(domain for domain in WORLD if "sunset" in domain.concepts)
    few = replace(scenes, concepts={name: scenes.concepts[name] for name in ("sunset", "night", "beach")}, pose=STILL)
    monkeypatch.setattr(module, "WORLD", (few,))
    monkeypatch.setattr(module, "zero_shot_table", lambda folder: {})
    lines: list[str] = []
    recipe = PretrainRecipe(
        samples=60 * 24, pairs=480, batch_size=24, warmup_steps=5, wrong=0.0, generic=0.0, max_logit_scale=12.0
    )
    with torch.random.fork_rng():
        backbone = load_backbone(pretrain(tmp_path, recipe, report=lines.append))
    images, which = draw_pairs(90, 1)
    with torch.no_grad():
        text = backbone.model.encode_text(backbone.tokenizer([f"a photo of a {name}." for name in few.concepts]))
        seen = backbone.model.encode_image(normalize(images, backbone))
    right = (functional.normalize(seen, dim=-1) @ functional.normalize(text, dim=-1).T).argmax(1) == which
    assert right.float().mean() > 0.8
    losses = [float(found[1]) for line in lines if (found := re.search(r"step .*: loss ([0-9.]+)", line))]
    assert len(losses) == 20 and losses[-1] < losses[0]
    assert "480 pairs of 3 concepts drawn" in lines[0]
    scales = [float(line.split()[-1]) for line in lines[1:]]
    assert all(1 <= scale <= 12.0 for scale in scales)  # it starts at 14.3


@pytest.mark.parametrize(
    "wrong",
    [
        {"samples": 31}, {"pairs": 31}, {"batch_size": 0}, {"lr": 0.0}, {"lr": math.nan}, {"warmup_steps": 0},
        {"weight_decay": -1.0}, {"clip_norm": 0.0}, {"max_logit_scale": 0.5}, {"wrong": 1.5}, {"generic": 0.91},
        {"seed": -1}, {"seed": 2**63}, {"betas": (0.9, 1.0)},
    ],
)  # fmt: skip
def test_a_recipe_that_cannot_run_is_refused(wrong: dict[str, Any]) -> None:
    (name,) = wrong
    with pytest.raises(InputError, match=rf"^{name}(\[1\])? is .*: expected"):
        replace(SHORT, **wrong)


@pytest.mark.parametrize("seed", [-1, 2**63, 2**64, True])
def test_an_impossible_seed_is_refused(seed: int) -> None:
    with pytest.raises(InputError, match=f"seed is {seed}"):
        draw_pairs(64, seed)
    with pytest.raises(InputError, match=f"seed is {seed}"):
        PretrainRecipe(seed=seed)


def test_bad_threads_are_named_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="threads is -1"):
        pretrain(tmp_path / "base", SHORT, threads=-1, report=silent)
    assert not (tmp_path / "base").exists()


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("stage", ["model.safetensors", "provenance.json"])
def test_a_run_that_fails_while_writing_leaves_the_older_base(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    """Half a model, or a model without its provenance, is never seen under the final name."""
    write = module._write_json

    def half(path: Path, tensors: dict[str, Tensor]) -> None:
        path.write_bytes(b"half a model")
        raise OSError(28, "No space left on device")

    def full(path: Path, content: dict[str, Any]) -> None:
        if path.name == stage:
            raise OSError(28, "No space left on device")
        write(path, content)

    before = load_backbone(write_base(tmp_path / "old")).weights.hash
    monkeypatch.setattr(module, "_write_json", full)
    if stage == "model.safetensors":
        monkeypatch.setattr(module, "save_tensors", half)
    for folder in ("old", "new"):
        with pytest.raises(OSError, match="No space left"):
            pretrain(tmp_path / folder, FEWEST, report=silent)
    assert load_backbone(tmp_path / "old").weights.hash == before
    with pytest.raises(InputError, match="unknown backbone"):
        load_backbone(tmp_path / "new")
    assert [path for path in (tmp_path / "old").iterdir() if path.name.startswith(".")] == []


@pytest.mark.usefixtures("quick")
def test_nothing_is_drawn_if_the_folder_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(pairs: int, seed: int) -> None:
        raise AssertionError("drawn before the folder was tried")

    monkeypatch.setattr(module, "draw_pairs", never)
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(OSError, match="taken"):
        pretrain(tmp_path / "taken", FEWEST, report=silent)
