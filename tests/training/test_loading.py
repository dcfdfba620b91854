"""From a split to float batches."""

import time
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms import functional as transforms

from rmtllmf_lib.errors import InputError
from rmtllmf_lib.model.backbone import Backbone
from rmtllmf_lib.tasks.base import Split
from rmtllmf_lib.tasks.images import LazyImages
from rmtllmf_lib.training.loading import (
    CROP_RATIO,
    CROP_TRIES,
    Schedule,
    batches,
    crop_box,
    cropped_pixels,
    normalize,
    resolve_device,
    training_batches,
)
from small import generator, small_backbone, small_split


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return small_backbone(layers=1)


def lazy(split: Split) -> Split:
    """The same images, decoded on demand."""
    return Split(LazyImages(range(len(split)), lambda i: transforms.to_pil_image(split.inputs[i])), split.labels)


def test_normalisation_is_that_of_the_backbone(backbone: Backbone) -> None:
    images = small_split(4).inputs
    assert isinstance(images, torch.Tensor)
    expected = transforms.normalize(images.double() / 255, [*backbone.mean], [*backbone.std])
    found = normalize(images, backbone)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=2e-6)
    assert images.dtype == torch.uint8 and torch.equal(images, small_split(4).inputs)


@pytest.mark.parametrize("size", [32, 40])
@pytest.mark.parametrize("threads", [None, 0, 1, 3])
def test_batches_are_the_split_in_order(backbone: Backbone, size: int, threads: int | None) -> None:
    split = small_split(23, size=size)
    reference = normalize(split.in_memory(32).inputs, backbone)
    for source in (split, lazy(split)):
        images, labels = zip(*batches(backbone, source, batch_size=10, threads=threads), strict=True)
        assert [len(part) for part in images] == [len(part) for part in labels] == [10, 10, 3]
        assert torch.equal(torch.cat(labels), split.labels)
        assert all(part.is_contiguous() for part in images)
        one_grey_level = 1.01 / 255 / min(backbone.std)
        torch.testing.assert_close(torch.cat(images), reference, rtol=0, atol=one_grey_level if size != 32 else 0)
    assert list(batches(backbone, split.subset([]))) == []


def test_lazy_images_of_all_sizes_come_out_alike(backbone: Backbone) -> None:
    sizes = [(50, 32), (32, 50), (20, 30), (200, 100)]
    images = LazyImages(sizes, lambda size: Image.new("RGB", size, (255, 0, 0)))
    split = Split(images, torch.arange(4))
    ((pixels, _),) = batches(backbone, split)
    assert pixels.shape == (4, 3, 32, 32)
    assert torch.equal(pixels, pixels[:1, :, :1, :1].expand(4, 3, 32, 32))


def test_lazy_images_are_decoded_ahead_but_not_all_at_once(backbone: Backbone) -> None:
    decoded: list[int] = []

    def decode(index: int) -> Image.Image:
        decoded.append(index)
        return Image.new("RGB", (32, 32))

    split = Split(LazyImages(range(100), decode), torch.zeros(100, dtype=torch.int64))
    stream = batches(backbone, split, batch_size=5, threads=2)
    next(stream)
    time.sleep(0.1)
    assert 5 <= len(decoded) <= 15
    stream.close()
    stopped = len(decoded)
    time.sleep(0.1)
    assert len(decoded) == stopped <= 15


@pytest.mark.parametrize("threads", [0, 2])
def test_an_unreadable_image_stops_the_run(backbone: Backbone, threads: int) -> None:
    def decode(index: int) -> Image.Image:
        if index == 7:
            raise InputError("unreadable image seven.png")
        return Image.new("RGB", (32, 32))

    split = Split(LazyImages(range(20), decode), torch.zeros(20, dtype=torch.int64))
    with pytest.raises(InputError, match="seven.png"):
        list(batches(backbone, split, batch_size=3, threads=threads))


@given(st.integers(1, 40), st.integers(1, 12), st.integers(1, 60), st.integers(0, 2**40))
def test_every_image_comes_once_an_epoch(images: int, steps: int, batch_size: int, seed: int) -> None:
    schedule = Schedule(images, steps, batch_size, seed)
    chosen = torch.cat([schedule.indices(step) for step in range(steps)])
    assert len(chosen) == steps * batch_size
    for epoch in chosen.split(images):
        counts = Counter(epoch.tolist())
        assert set(counts.values()) == {1} and set(counts) <= set(range(images))
    assert torch.equal(schedule.indices(steps - 1), chosen[-batch_size:])


def test_the_schedule_is_random_and_repeats() -> None:
    one, two = generator(), generator()
    schedule = Schedule.draw(1000, 10, 64, one)
    assert schedule == Schedule.draw(1000, 10, 64, two)
    assert torch.equal(one.get_state(), two.get_state())
    assert Schedule.draw(1000, 10, 64, one).seed != schedule.seed
    order = torch.cat([schedule.indices(step) for step in range(10)])
    assert not torch.equal(order, order.sort().values)
    assert not torch.equal(schedule.indices(0), replace_seed(schedule, schedule.seed + 1).indices(0))
    uniforms = np.concatenate([schedule.uniforms(step, 40) for step in range(10)])
    assert uniforms.shape == (640, 40) and 0 <= uniforms.min() and uniforms.max() < 1
    assert abs(uniforms.mean() - 0.5) < 0.01 and len(np.unique(uniforms)) == uniforms.size


@pytest.mark.parametrize("wrong", [{"seed": -1}, {"seed": 2**64}, {"images": 0}, {"steps": -1}, {"batch_size": 0.5}])
def test_a_schedule_that_cannot_be_is_refused(wrong: dict[str, Any]) -> None:
    (name,) = wrong
    with pytest.raises(InputError, match=f"{name} is"):
        Schedule(**{"images": 5, "steps": 5, "batch_size": 5, "seed": 5, **wrong})


def replace_seed(schedule: Schedule, seed: int) -> Schedule:
    return Schedule(schedule.images, schedule.steps, schedule.batch_size, seed)


@pytest.mark.parametrize("augment", ["none", "crop"])
def test_training_batches_do_not_depend_on_threads_or_the_start(backbone: Backbone, augment: str) -> None:
    split = small_split(30, size=40)
    schedule = Schedule.draw(30, 5, 8, generator())

    def stream(source: Split, **options: Any) -> list[tuple[torch.Tensor, torch.Tensor]]:
        return list(training_batches(backbone, source, schedule, augment=augment, **options))

    reference = stream(split, threads=0)
    assert len(reference) == 5 and {images.shape for images, _ in reference} == {(8, 3, 32, 32)}
    for step, (_, labels) in enumerate(reference):
        assert torch.equal(labels, split.labels[schedule.indices(step)])
    for other in (stream(split, threads=3), stream(split)):
        assert all(torch.equal(a, b) for pair in zip(reference, other, strict=True) for a, b in zip(*pair, strict=True))
    late = stream(split, first_step=3)
    assert len(late) == 2 and torch.equal(late[0][0], reference[3][0])
    if augment == "crop":  # the same boxes, whether decoded on demand or not
        assert torch.equal(stream(lazy(split))[1][0], reference[1][0])


def test_crops_show_parts_of_the_right_image(backbone: Backbone) -> None:
    split = small_split(10, size=64)
    uniforms = Schedule(10, 1, 10, 5).uniforms(0, 2 * CROP_TRIES + 2)
    cropped = cropped_pixels(split, torch.arange(10), 32, uniforms)
    assert cropped.shape == (10, 3, 32, 32) and cropped.dtype == torch.uint8
    whole = split.in_memory(32).inputs
    assert isinstance(whole, torch.Tensor) and not torch.equal(cropped, whole)
    distance = (cropped.float().mean((2, 3))[:, None] - whole.float().mean((2, 3))[None]).abs().sum(2)
    # Each class comes twice (labels in turn), so its own image or the other of its colour is nearest.
    assert torch.equal(distance.argmin(1) % 5, torch.arange(10) % 5)


@given(st.integers(1, 300), st.integers(1, 300), st.integers(0, 2**32 - 1))
def test_crop_boxes_fit(height: int, width: int, seed: int) -> None:
    uniforms = np.random.default_rng(seed).random(2 * CROP_TRIES + 2)
    top, left, h, w = crop_box(uniforms, height, width)
    assert 0 <= top and 0 <= left and 1 <= h and 1 <= w and top + h <= height and left + w <= width


def test_crop_boxes_are_distributed_as_torchvision_s() -> None:
    rng = np.random.default_rng(0)
    mine = np.array([crop_box(rng.random(2 * CROP_TRIES + 2), 224, 224) for _ in range(4000)])
    image = torch.zeros(3, 224, 224)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        theirs = np.array([RandomResizedCrop.get_params(image, [0.9, 1.0], [*CROP_RATIO]) for _ in range(4000)])
    error = np.hypot(mine.std(0), theirs.std(0)) / 4000**0.5
    assert (abs(mine.mean(0) - theirs.mean(0)) < 4 * error).all()
    np.testing.assert_allclose(mine.std(0), theirs.std(0), rtol=0.06)


def test_the_crop_of_a_long_image_is_its_centre() -> None:
    uniforms = np.full(2 * CROP_TRIES + 2, 0.5)
    assert crop_box(uniforms, 10, 1000) == (0, 493, 10, 13)
    assert crop_box(uniforms, 1000, 10) == (493, 0, 13, 10)


def test_devices_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve_device("cpu") == torch.device("cpu")
    for wrong in ("gpu", "cuda:x", "mps", ""):
        with pytest.raises(InputError, match="device is .*: expected"):
            resolve_device(wrong)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("auto") == torch.device("cpu")
    with pytest.raises(InputError, match="device is 'cuda': expected .* 0"):
        resolve_device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert resolve_device("auto") == resolve_device("cuda") == torch.device("cuda")
    with pytest.raises(InputError, match="device is 'cuda:1': expected .* 1"):
        resolve_device("cuda:1")


def test_bad_input_is_named(backbone: Backbone) -> None:
    split = small_split(4)
    with pytest.raises(InputError, match="batch_size is 0"):
        list(batches(backbone, split, batch_size=0))
    with pytest.raises(InputError, match="threads is -1"):
        list(batches(backbone, split, threads=-1))
    with pytest.raises(InputError, match="augment is 'flip'"):
        list(training_batches(backbone, split, Schedule(4, 1, 2, 0), augment="flip"))
    with pytest.raises(InputError, match="first_step is -1"):
        list(training_batches(backbone, split, Schedule(4, 1, 2, 0), first_step=-1))
