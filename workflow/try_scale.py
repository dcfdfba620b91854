"""Run chapters with models of ViT-B/16's size on a CPU: random weights, two tasks of 40 images, three training steps.

    python -m workflow.try_scale                      # all of them: hours
    python -m workflow.try_scale 04_fusion            # one

No number means anything; that a chapter runs to its end with these shapes, files and commands does. Everything lies
in one folder, `runs/scale` by default, and what is there already is not made again.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

import numpy as np
import open_clip
import torch
from PIL import Image
from safetensors.torch import save_file

from rmtllmf_lib.command import cli
from rmtllmf_lib.model.backbone import OPENAI_VIT

TASKS = {"stripes": 2, "dots": 3}  # name: classes
SIDE = 224
STEPS = 3

# The smallest parameters of each chapter that takes a model.
CHAPTERS = {
    "02_wde_mse_test": {
        "pair": "stripes,dots", "user_mse": "0.1,0.2", "images": 2, "noise_draws": 2, "few_images": 1, "few_draws": 2,
        "wide_images": 2, "wide_draws": 2,
    },
    "04_fusion": {
        "lam_grid": "0.3,0.5", "validation_images": 2, "lam_per_size": 1, "combination_images": 2, "test_images": 2,
        "seeds": 1, "per_class": 1, "per_size": 1, "trained_sizes": "[2]", "trained_per_size": 1, "drops": 2,
    },
    "05_interference": {"seeds": 1, "per_class": 1, "test_images": 2},
    "06_ablations": {
        "seeds": 1, "more_seeds": 1, "test_images": 2, "per_class": "[1]", "per_class_attacked": "[1]", "steps": "[1]",
        "rates": "[0.0001]", "lambdas": "[0.1, 0.3]",
    },
    "08_mergers": {},
}  # fmt: skip
WITHOUT_A_BACKBONE = ("09_send_less", "10_physical_layer")  # the embedded model alone, and no model


def write_images(root: Path) -> None:
    """Images of several classes, 24 for training and 16 for tests, of other sizes than the tower takes."""
    rng = np.random.default_rng(0)
    for task, classes in TASKS.items():
        for part, count in (("train", 24), ("test", 16)):
            for index in range(count):
                label = index % classes
                y, x = np.mgrid[:SIDE, : SIDE + 40] / (8 + 6 * label)
                wave = np.sin(x) if task == "stripes" else np.sin(x) * np.sin(y)
                pixels = 127 + 90 * wave[..., None] + rng.normal(0, 20, (*wave.shape, 3))
                file = root / task / part / f"kind {label}" / f"{index}.jpg"
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file)


def write_weights(file: Path) -> None:
    """A random model, in the format in which open_clip reads OpenAI's."""
    torch.manual_seed(0)
    model = open_clip.create_model(OPENAI_VIT, pretrained=None)
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous() for name, tensor in model.state_dict().items()}, file)


def run(words: list[str]) -> None:
    """Run a command of `rmtllmf`, and say how long it took; stop where it fails."""
    print("rmtllmf", *words, flush=True)
    start = time.perf_counter()
    if status := cli.main(words):
        raise SystemExit(status)
    print(f"{time.perf_counter() - start:.0f} s", flush=True)


def main(arguments: list[str] | None = None) -> int:
    """Write weights and images, fine-tune, and run the chapters; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m workflow.try_scale", description=__doc__.split("\n")[0])
    known = [*CHAPTERS, *WITHOUT_A_BACKBONE]
    parser.add_argument("chapters", nargs="*", metavar="CHAPTER", help=f"of {', '.join(known)}; default all")
    parser.add_argument("--out", type=Path, default=Path("runs/scale"), help="folder for everything")
    given = parser.parse_args(arguments)
    if unknown := set(given.chapters) - set(known):
        parser.error(f"unknown chapters {', '.join(sorted(unknown))}: expected some of {', '.join(known)}")
    out = given.out.absolute()
    os.environ["RMTLLMF_HOME"] = str(out / "store")
    weights, images = out / "open_clip_model.safetensors", out / "images"
    if not images.is_dir():
        write_images(images)
    if not weights.is_file():
        write_weights(weights)
    tasks = [f"folder:{name}" for name in TASKS]
    base = ["--backbone", OPENAI_VIT, "--backbone-file", str(weights), "--root", str(images)]
    size = ["--steps", str(STEPS), "--batch-size", "4", "--out", str(out / "tau"), "--head", "prototype"]
    run(["finetune", *tasks, *base, *size])
    model = {"backbone_name": OPENAI_VIT, "backbone_file": weights, "root": images, "head": "prototype", "workers": 1}
    model |= {"vectors": out / "tau", "task_names": ",".join(tasks)}
    for chapter in given.chapters or known:
        parameters = {**model, **CHAPTERS[chapter]} if chapter in CHAPTERS else {}
        words = [word for name, value in parameters.items() for word in ("-p", f"{name}={value}")]
        run(["run", f"notebooks/{chapter}.ipynb", "-o", str(out / f"{chapter}.ipynb"), *words])
    return 0


if __name__ == "__main__":
    sys.exit(main())
