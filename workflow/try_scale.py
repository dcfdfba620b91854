"""Run chapters with models of ViT-B/16's size on a CPU: random weights, two tasks of 40 images, three training steps.

    python -m workflow.try_scale                      # all of them: hours on two cores
    python -m workflow.try_scale 04_fusion            # one
    python -m workflow.try_scale --backbone tiny      # the same steps with the embedded model: minutes

No number means anything; that a chapter runs to its end with these shapes, files and commands does. Everything lies
in one folder, `runs/scale` by default. What is there is not made again, but for the chapters, and what these computed
is taken from the store in that folder. After each command stand its minutes, and the memory of its largest process.

Chapters 9 and 10 take no backbone, so a user of ViT-B/16 has nothing to change in them. Chapter 9 sends task vectors of
the embedded model and shows stored results for it; what sending less does to vectors of ViT-B/16, `rmtllmf study` says
with the same protections, and `workflow/payloads.py` is how the stored results were made. Chapter 10 is about the link
alone. They run here as they are with their smallest parameters.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from PIL import Image
from safetensors.torch import save_file

from rmtllmf_lib.model.backbone import OPENAI_VIT

TASKS = {"stripes": 2, "dots": 3}  # name: classes
PARTS = {"train": 30, "test": 10}  # images
USED = 4  # of those for training, validation included, which keeps the memories small
SIDE = 224
STEPS, RATE = 3, 1e-4  # vectors of three steps at the usual rate are so short that their noise drowns in rounding

# The smallest parameters of each chapter that takes a model.
REALIGNMENT = {"realign": '{"steps": 1, "lr": 1e-5, "batch_size": 2}'}
CHAPTERS: Mapping[str, Mapping[str, Any]] = {
    "02_wde_mse_test": {
        "pair": "stripes,dots", "user_mse": "0.1,0.2", "map_points": 1, "images": 1, "noise_draws": 2, "few_images": 1,
        "few_draws": 2, "wide_images": 1, "wide_draws": 2,
    },
    "04_fusion": {
        "lam_grid": "0.3,0.5", "validation_images": 1, "lam_per_size": 1, "combination_images": 1, "test_images": 1,
        "seeds": 1, "per_class": 1, "per_size": 1, "trained_sizes": "[2]", "trained_per_size": 1, "drops": 2,
        **REALIGNMENT,
    },
    "05_interference": {"seeds": 1, "per_class": 1, "test_images": 1, **REALIGNMENT},
    "06_ablations": {
        "seeds": 1, "more_seeds": 1, "test_images": 1, "per_class": "[1, 10]", "per_class_attacked": "[1, 10]",
        "protected_scales": '["weight"]', "steps": "[1]", "rates": "[0.00001]", "lambdas": "[0.1, 0.3]", **REALIGNMENT,
    },
    "08_mergers": {"test_images": 1, "again": "arithmetic,tsv"},
}  # fmt: skip
WITHOUT_A_BACKBONE: Mapping[str, Mapping[str, Any]] = {
    "09_send_less": {"test_images": 10},
    "10_physical_layer": {"num_drops": 20},
}


def write_images(root: Path) -> None:
    """Images of classes that random weights tell apart, by their colours; of another size than the tower takes."""
    rng = np.random.default_rng(0)
    for task, classes in TASKS.items():
        for part, count in PARTS.items():
            for index in range(count):
                label = index % classes
                y, x = np.mgrid[:SIDE, : SIDE + 40] / (8 + 6 * label)
                wave = np.sin(x) if task == "stripes" else np.sin(x) * np.sin(y)
                pixels = 90 + 60 * wave[..., None] + 90 * np.eye(3)[label] + rng.normal(0, 20, (*wave.shape, 3))
                file = root / task / part / f"kind {label}" / f"{index}.jpg"
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file)


def write_weights(file: Path) -> None:
    """A random model, in the format in which open_clip reads OpenAI's."""
    torch.manual_seed(0)
    model = open_clip.create_model(OPENAI_VIT, pretrained=None)
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, file)


def run(words: list[str], store: Path) -> None:
    """Run a command of `rmtllmf` in a process of its own, say what it took, and stop where it fails.

    The memory is that of the largest of its processes: `wait4` knows of those whose end was waited for.
    """
    print("rmtllmf", *words, flush=True)
    start = time.perf_counter()
    command = [sys.executable, "-m", "rmtllmf_lib.command.cli", *words]
    child = os.posix_spawn(sys.executable, command, {**os.environ, "RMTLLMF_HOME": str(store)})
    _, status, used = os.wait4(child, 0)
    minutes, cpu = (time.perf_counter() - start) / 60, (used.ru_utime + used.ru_stime) / 60
    peak = used.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e9
    print(f"{minutes:.1f} minutes, {cpu:.1f} of processors; the largest process had {peak:.1f} GB", flush=True)
    if code := os.waitstatus_to_exitcode(status):
        raise SystemExit(code)


def trained(out: Path, backbone: str, store: Path) -> dict[str, Any]:
    """Write weights and images, fine-tune on them, and return the parameters that chapters share."""
    images, tau, tasks = out / "images", out / f"tau-{backbone}", [f"folder:{name}" for name in TASKS]
    model: dict[str, Any] = {"backbone_name": backbone, "root": images, "head": "prototype"}
    if not images.is_dir():
        write_images(images)
    if backbone == OPENAI_VIT:
        model["backbone_file"] = out / "open_clip_model.safetensors"
        if not model["backbone_file"].is_file():
            write_weights(model["backbone_file"])
    options = {"backbone": backbone, "backbone-file": model.get("backbone_file"), "root": images}
    options |= {"train-images": USED, "steps": STEPS, "lr": RATE, "batch-size": 4, "out": tau, "head": "prototype"}
    run(["finetune", *tasks, *(f"--{name}={value}" for name, value in options.items() if value)], store)
    return model | {"vectors": tau, "task_names": ",".join(tasks), "workers": 1}


def main(arguments: list[str] | None = None) -> int:
    """Fine-tune where a chapter needs it, and run the chapters; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m workflow.try_scale", description=__doc__.split("\n")[0])
    known = {**CHAPTERS, **WITHOUT_A_BACKBONE}
    parser.add_argument("chapters", nargs="*", metavar="CHAPTER", help=f"of {', '.join(known)}; default all")
    parser.add_argument("--out", type=Path, default=Path("runs/scale"), help="folder for everything")
    parser.add_argument("--backbone", choices=(OPENAI_VIT, "tiny"), default=OPENAI_VIT, help="tiny: a quick rehearsal")
    given = parser.parse_args(arguments)
    if unknown := set(given.chapters) - set(known):
        parser.error(f"unknown chapters {', '.join(sorted(unknown))}: expected some of {', '.join(known)}")
    out = given.out.absolute()
    store, chapters = out / "store", given.chapters or [*known]
    model = trained(out, given.backbone, store) if {*chapters} & {*CHAPTERS} else {}
    for chapter in chapters:
        parameters = {**(model if chapter in CHAPTERS else {}), **known[chapter]}
        words = [word for name, value in parameters.items() for word in ("-p", f"{name}={value}")]
        run(["run", f"notebooks/{chapter}.ipynb", "-o", str(out / given.backbone / f"{chapter}.ipynb"), *words], store)
    return 0


if __name__ == "__main__":
    sys.exit(main())
