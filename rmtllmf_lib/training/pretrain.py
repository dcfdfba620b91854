"""Pre-training of the embedded CLIP: the CLIP loss on drawn image–caption pairs (Radford et al., 2021).

The images show the concepts of the eight tasks and many others (shapes, letters, everyday things), with other cameras,
other fonts and a wider range of poses than the tasks have. As on the web, some captions are wrong and some name only
the category; otherwise the zero-shot accuracy would be too good.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import numpy as np
import open_clip
import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor
from torch.nn import functional

from rmtllmf_lib.arrays import seed_number, whole_number
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.model.backbone import WordTokenizer, load_backbone, new_model
from rmtllmf_lib.progress import tqdm
from rmtllmf_lib.reprs import short_repr
from rmtllmf_lib.storage.atomic import atomic_write
from rmtllmf_lib.storage.canonical import config_key
from rmtllmf_lib.storage.tensors import save_tensors
from rmtllmf_lib.tasks.base import CLIP_MEAN, CLIP_STD, TASK_NAMES
from rmtllmf_lib.tasks.embedded.camera import Camera
from rmtllmf_lib.tasks.embedded.concepts import aerial, cars, characters, landuse, scenes, shapes, signs, textures
from rmtllmf_lib.tasks.embedded.difficulty import UNDRAWN
from rmtllmf_lib.tasks.embedded.draw import Concept, Pose
from rmtllmf_lib.tasks.embedded.procedural import DRAWN, Seed, draw_evenly, procedural_task
from rmtllmf_lib.training.evaluate import accuracy
from rmtllmf_lib.training.finetune import Beta
from rmtllmf_lib.training.heads import build_head
from rmtllmf_lib.validated import validated, validated_call

CONTEXT_LENGTH = 12
FILES = ("config.json", "model.safetensors", "provenance.json")
TINY: dict[str, Any] = {
    "embed_dim": 64,
    "vision_cfg": {"image_size": 32, "patch_size": 8, "width": 64, "layers": 4, "head_width": 32},
    "text_cfg": {"context_length": CONTEXT_LENGTH, "width": 64, "heads": 2, "layers": 2},
}


@dataclass(frozen=True)
class Domain:
    """One category of images: its concepts, their poses and their captions."""

    concepts: Mapping[str, Concept]
    pose: Pose
    captions: tuple[str, ...]  # templates, with {} for the concept's name
    generic: str  # caption that names only the category

    __repr__ = short_repr


_UPRIGHT, _ANY = Pose((-20, 20), (0.6, 1.1), 0.22, True), Pose((-180, 180), (0.6, 1.2), 0.22, True)
_READABLE, _WIDE = Pose((-16, 16), (0.6, 1.1), 0.2), Pose((-12, 12), (0.75, 1.3), 0.2, True)

WORLD: tuple[Domain, ...] = (
    Domain(cars.CONCEPTS, _UPRIGHT, ("a photo of a {}.", "a {} on the street.", "my {}."), "a photo of a car."),
    Domain(
        textures.CONCEPTS,
        Pose((-60, 60), (0.65, 1.2), 0.25, True),
        ("a photo of a {} texture.", "a {} pattern.", "a {} surface."),
        "a photo of a texture.",
    ),
    Domain(
        landuse.CONCEPTS, _ANY, ("a satellite photo of {}.", "{} from above.", "land use {}."), "a satellite photo."
    ),
    Domain(signs.CONCEPTS, _READABLE, ("a photo of a {}.", "a {} by the road.", "the {}."), "a traffic sign."),
    Domain(
        aerial.CONCEPTS,
        _ANY,
        ("an aerial photo of a {}.", "a satellite photo of the {}.", "a {} from above."),
        "an aerial photo.",
    ),
    Domain(scenes.CONCEPTS, _WIDE, ("a photo of a {}.", "the {}.", "a {} scene."), "a scene."),
    Domain(
        characters.PEN_DIGITS,
        _READABLE,
        ("a photo of the number {}.", "a handwritten {}.", "the digit {}."),
        "a handwritten number.",
    ),
    Domain(
        characters.HOUSE_NUMBERS,
        _READABLE,
        ("a photo of the house number {}.", "the number {} on a wall.", "the house number {}."),
        "a house number on a wall.",
    ),
    Domain(characters.PRINTED_LETTERS, _READABLE, ("a photo of the letter {}.", "the letter {}."), "a letter."),
    Domain(shapes.CONCEPTS, _UPRIGHT, ("a photo of a {}.", "a drawing of a {}."), "a drawing."),
)


@validated
class PretrainRecipe:
    """Settings of the pre-training: every number that decides the result.

    Attributes
    ----------
    samples, pairs : int
        Image–caption pairs seen in training, and distinct ones drawn; at least one batch.
    max_logit_scale : float
        Upper bound of the logit scale.
    wrong, generic : float
        Shares of the captions that belong to another image, or name only the category; at most 1 together.
    """

    samples: int = 2_560_000
    pairs: int = 300_000
    batch_size: PositiveInt = 256
    lr: PositiveFloat = 2e-3
    betas: tuple[Beta, Beta] = (0.9, 0.98)
    weight_decay: NonNegativeFloat = 0.1
    warmup_steps: PositiveInt = 100
    clip_norm: PositiveFloat = 1.0
    max_logit_scale: Annotated[float, Field(ge=1)] = 50.0
    wrong: Annotated[float, Field(ge=0, le=1)] = 0.1
    generic: NonNegativeFloat = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        seed_number(self.seed)
        for name in ("samples", "pairs"):
            if getattr(self, name) < self.batch_size:
                raise InputError(f"{name} is {getattr(self, name)}: expected at least one batch of {self.batch_size}")
        if self.generic > 1 - self.wrong:
            raise InputError(f"generic is {self.generic}: expected a share that with wrong = {self.wrong} is at most 1")


def _random_camera(rng: np.random.Generator) -> Camera:
    """A camera with random settings; each block of images has its own."""
    return Camera(
        hue=float(rng.uniform(-20, 20)),
        saturation=float(rng.uniform(0.6, 1.2)),
        gamma=float(rng.uniform(0.75, 1.35)),
        blur=float(rng.uniform(0.0, 1.0)),
        gain=(0.7, 1.2),
        contrast=(0.6, 1.15),
        noise=(0.0, 0.06),
        jitter=0.06,
        clutter=0.15,
    )


def world_concepts() -> list[tuple[Domain, str]]:
    """Every concept of `WORLD`: its domain and its name."""
    return [(domain, name) for domain in WORLD for name in domain.concepts]


def draw_pairs(pairs: int, seed: int) -> tuple[Tensor, Tensor]:
    """Draw the pre-training images, equally many of each concept.

    Returns
    -------
    images : (pairs, 3, 32, 32) uint8
    which : (pairs,) int64
        Index of each image's concept in `world_concepts()`.
    """
    concepts = world_concepts()
    whole_number(pairs, "pairs")
    seed_number(seed)

    def setting(k: int, start: int) -> tuple[Seed, Pose, Camera]:
        camera = _random_camera(np.random.default_rng((seed, 1, k, start)))
        return (seed, 2, k, start), concepts[k][0].pose, camera

    return draw_evenly([domain.concepts[name] for domain, name in concepts], pairs, setting)


def vocabulary() -> tuple[str, ...]:
    """Every word of the captions and of the eight tasks' templates and class names, sorted."""
    texts = [t for d in WORLD for t in (*d.captions, *d.concepts, d.generic)]
    texts += [t for task in DRAWN.values() for t in (*task.templates, *task.concepts)]
    return tuple(sorted({word for text in texts for word in WordTokenizer.split(text)}))


def caption_batch(which: Tensor, recipe: PretrainRecipe, rng: np.random.Generator) -> tuple[list[str], Tensor]:
    """The distinct captions of a batch and, for each image, the index of its caption.

    All images of one concept in a batch get the same caption: equal captions are one positive, encoded once.
    """
    concepts = world_concepts()
    wording = {id(domain): domain.captions[rng.integers(len(domain.captions))] for domain in WORLD}
    fate = rng.random(len(which))
    swapped = rng.integers(len(concepts), size=len(which))
    rows: dict[str, int] = {}
    targets = []
    for k, chance, other in zip(which.tolist(), fate, swapped, strict=True):
        domain, name = concepts[other if chance < recipe.wrong else k]
        generic = recipe.wrong <= chance < recipe.wrong + recipe.generic
        caption = domain.generic if generic else wording[id(domain)].format(name)
        targets.append(rows.setdefault(caption, len(rows)))
    return list(rows), torch.tensor(targets)


def clip_loss(image: Tensor, text: Tensor, targets: Tensor, scale: Tensor) -> Tensor:
    """Symmetric CLIP loss, a scalar, with merged captions: image → its caption, caption → all its images.

    Parameters
    ----------
    image : (n, d)
        Normalised image features.
    text : (m, d)
        Normalised features of the distinct captions.
    targets : (n,) int64
        Index of each image's caption.
    scale : () Tensor
        Logit scale.
    """
    logits = scale * image @ text.T
    forward = functional.cross_entropy(logits, targets)
    among_images = logits.log_softmax(0)[torch.arange(len(targets)), targets]
    images = torch.bincount(targets, minlength=len(text))  # of each caption
    per_caption = torch.zeros(len(text)).index_add(0, targets, among_images) / images
    return (forward - per_caption.mean()) / 2


@validated_call
def pretrain(
    out: str | Path,
    recipe: PretrainRecipe | None = None,
    *,
    threads: int | None = None,
    report: Callable[[str], None] = print,
) -> Path:
    """Train a base from scratch and write it to a folder that `load_backbone` reads.

    Parameters
    ----------
    out : path
        Folder for model.safetensors, config.json and provenance.json. They are written at the end; a base that is
        there already stays until then.
    threads : int, optional
        Number of torch threads, on which the last bits of the result depend.
    report : callable
        Called with progress lines.

    Raises
    ------
    InputError
        if `threads` is less than 1.
    OSError
        if the folder cannot be written, before anything is drawn, or if the disk is full at the end.
    """
    recipe = recipe or PretrainRecipe()
    if threads is not None:
        whole_number(threads, "threads")
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    # A temporary folder inside `out`: the files are only renamed at the end, and a read-only folder fails right away.
    with TemporaryDirectory(prefix=".unfinished-", dir=out) as new:
        _write_json(Path(new) / "recipe.json", asdict(recipe))
        if threads:
            torch.set_num_threads(threads)
        images, which = draw_pairs(recipe.pairs, recipe.seed)
        data_hash = hashlib.sha256(images.numpy().tobytes()).hexdigest()
        report(f"{recipe.pairs} pairs of {len(world_concepts())} concepts drawn, data sha256 {data_hash[:12]}")
        tokenizer = WordTokenizer(vocabulary(), CONTEXT_LENGTH)
        text_cfg = {**TINY["text_cfg"], "vocab_size": tokenizer.vocab_size}
        config: dict[str, Any] = {**TINY, "text_cfg": text_cfg, "vocabulary": list(tokenizer.words)}
        torch.manual_seed(recipe.seed)  # open_clip initialises from the global generator
        model = new_model(config)
        _optimise(model, tokenizer, images, which, recipe, report)
        _write(Path(new), model, config, recipe, data_hash)
        for name in FILES:
            os.replace(Path(new) / name, out / name)
    return out


def _optimise(
    model: open_clip.CLIP,
    tokenizer: WordTokenizer,
    images: Tensor,
    which: Tensor,
    recipe: PretrainRecipe,
    report: Callable[[str], None],
) -> None:
    """Train `model` in place."""
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    vectors = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": recipe.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=recipe.lr, betas=recipe.betas)
    steps = recipe.samples // recipe.batch_size
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (CLIP_MEAN, CLIP_STD))
    rng = np.random.default_rng((recipe.seed, 3))
    order = torch.empty(0, dtype=torch.int64)
    running = 0.0
    model.train()
    for step in tqdm(range(steps), desc="pre-training", unit="step", disable=None):
        if len(order) < recipe.batch_size:
            order = torch.from_numpy(rng.permutation(len(images)))
        batch, order = order[: recipe.batch_size], order[recipe.batch_size :]
        ramp = min(1.0, (step + 1) / recipe.warmup_steps)
        for group in optimizer.param_groups:
            group["lr"] = recipe.lr * ramp * 0.5 * (1 + math.cos(math.pi * step / steps))
        captions, targets = caption_batch(which[batch], recipe, rng)
        image = model.encode_image((images[batch].float() / 255 - mean) / std, normalize=True)
        text = model.encode_text(tokenizer(captions), normalize=True)
        loss = clip_loss(image, text, targets, model.logit_scale.exp())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_norm)
        optimizer.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0.0, math.log(recipe.max_logit_scale))
        running = loss.item() if step == 0 else 0.98 * running + 0.02 * loss.item()
        if (step + 1) % max(1, steps // 20) == 0:
            report(f"step {step + 1} of {steps}: loss {running:.3f}, logit scale {model.logit_scale.exp().item():.1f}")


def _write(new: Path, model: open_clip.CLIP, config: dict[str, Any], recipe: PretrainRecipe, data_hash: str) -> None:
    file = new / "model.safetensors"
    with atomic_write(file) as temporary:
        save_tensors(temporary, {k: v.detach().contiguous() for k, v in model.state_dict().items()})
    provenance: dict[str, Any] = {
        "command": f"rmtllmf pretrain --out DIR --seed {recipe.seed} --samples {recipe.samples} --pairs {recipe.pairs} "
        f"--threads {torch.get_num_threads()}",
        "recipe": asdict(recipe),
        "data_sha256": data_hash,
        "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        "config_sha256": config_key(config),  # of the content: line endings may differ between checkouts
        "threads": torch.get_num_threads(),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "open_clip_torch": open_clip.__version__,
            "numpy": np.__version__,
        },
        "parameters": sum(p.numel() for p in model.parameters()),
    }
    _write_json(new / "config.json", config)
    _write_json(new / "provenance.json", provenance)
    provenance["zero_shot_test_accuracy"] = zero_shot_table(new)
    _write_json(new / "provenance.json", provenance)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n")


@validated_call
@torch.no_grad()
def zero_shot_table(folder: str | Path) -> dict[str, float]:
    """Zero-shot test accuracy of a base on each of the eight embedded tasks at their easiest, and their mean."""
    backbone = load_backbone(folder)
    table = {}
    for name in TASK_NAMES:
        difficulty = None if name in UNDRAWN else "easy"
        task = procedural_task(
            name, difficulty=difficulty, n_train=100
        )  # the test images are the same with any number of these
        table[name] = round(accuracy(backbone, backbone.weights, task.test, build_head(backbone, task)), 4)
    table["mean"] = round(sum(table.values()) / len(table), 4)
    return table
