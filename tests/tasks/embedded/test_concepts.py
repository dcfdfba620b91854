"""What the concepts draw: something, whatever the seed, and something of their own."""

import numpy as np
import pytest
from numpy.typing import NDArray

from canvases import PLAIN, STILL, canvas
from rmtllmf_lib.tasks.embedded.concepts import aerial, cars, characters, landuse, scenes, shapes, signs, textures
from rmtllmf_lib.tasks.embedded.draw import (
    PRETRAINING_FONTS,
    SIZE,
    TASK_FONTS,
    Array,
    Canvas,
    Concept,
    Pose,
    glyph_atlas,
)
from rmtllmf_lib.tasks.embedded.procedural import DRAWN, draw

KINDS: dict[str, dict[str, Concept]] = {
    module.__name__.rpartition(".")[2]: module.CONCEPTS
    for module in (aerial, cars, landuse, scenes, shapes, signs, textures)
}
PRETRAINING_CHARACTERS = {
    "pen digits": characters.PEN_DIGITS,
    "house numbers": characters.HOUSE_NUMBERS,
    "letters": characters.PRINTED_LETTERS,
}
KINDS |= PRETRAINING_CHARACTERS | {"house numbers in the fonts of the task": characters.TASK_HOUSE_NUMBERS}


@pytest.mark.parametrize("kind", KINDS)
def test_concepts_draw(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Finite, in range, not empty; the same seed the same bits, another seed other ones; polygons are convex."""
    plain_polygon = Canvas.polygon

    def checked(self: Canvas, *corners: tuple[object, object]) -> Array:
        points = np.array([[np.broadcast_to(x, self.n) for x in corner] for corner in corners], float)
        side = np.roll(points, -1, 0) - points
        after = np.roll(side, -1, 0)
        turns = side[:, 0] * after[:, 1] - side[:, 1] * after[:, 0]
        assert (turns >= -1e-6).all(), "a corner turns the wrong way: `polygon` takes convex ones, clockwise"
        return plain_polygon(self, *corners)  # type: ignore[arg-type]

    monkeypatch.setattr(Canvas, "polygon", checked)
    for name, concept in KINDS[kind].items():
        c = canvas(5, n=6, pose=Pose((-20, 20), (0.5, 1.5), 0.4, True))
        concept(c)
        assert c.rgb.dtype == c.u.dtype == c.v.dtype == np.float32, name
        assert np.isfinite(c.rgb).all() and c.rgb.min() > -1e-5 and c.rgb.max() < 1.5, name
        first, again, other = (draw(concept, 6, (k,), STILL, PLAIN) for k in (0, 0, 1))
        assert first.shape == (6, 3, SIZE, SIZE) and first.dtype == np.uint8, name
        assert np.array_equal(first, again) and not np.array_equal(first, other), name
        assert (first.std((2, 3)).max(1) > 4).all(), f"an image of {name} is of one colour"
        assert len({image.tobytes() for image in first}) == 6, name


def features(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Colours of 4 x 4 pixels, absolute spectrum and absolute contrast of the brightness."""
    n, x = len(images), images.astype(np.float32) / 255
    grey = x.mean(1) - x.mean((1, 2, 3))[:, None, None]
    grey = grey / np.maximum(grey.std((1, 2), keepdims=True), 1e-3)
    parts = [
        2 * x.reshape(n, 3, 8, 4, 8, 4).mean((3, 5)),
        np.abs(np.fft.rfft2(grey))[:, :, :12] / SIZE,
        np.abs(grey.reshape(n, 16, 2, 16, 2).mean((2, 4))),
    ]
    return np.concatenate([part.reshape(n, -1) for part in parts], 1)


@pytest.mark.parametrize("kind", KINDS)
def test_concepts_can_be_told_apart(kind: str) -> None:
    """A ridge regression on simple features knows every concept of a kind, most of the time."""
    concepts, train, test = list(KINDS[kind].values()), 30, 12
    images = [draw(c, train + test, (7, k), STILL, PLAIN) for k, c in enumerate(concepts)]
    found = features(np.concatenate(images)).reshape(len(concepts), train + test, -1)
    x, probes = (
        part.reshape(-1, found.shape[-1]) - found[:, :train].mean((0, 1)) for part in np.split(found, [train], 1)
    )
    wanted = np.repeat(np.eye(len(concepts)), train, axis=0) - 1 / len(concepts)
    gram = x @ x.T
    gram[np.diag_indices_from(gram)] += 0.01 * np.trace(gram) / len(gram)
    scores = (probes @ x.T) @ np.linalg.solve(gram, wanted)
    right = scores.argmax(1).reshape(len(concepts), test) == np.arange(len(concepts))[:, None]
    assert right.mean() > 0.9
    assert right.mean(1).min() > 0.6


def test_tasks_are_written_in_fonts_that_pretraining_never_saw(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not set(TASK_FONTS) & set(PRETRAINING_FONTS)
    seen: list[tuple[str, ...]] = []

    def spy(text: str, fonts: tuple[str, ...]) -> Array:
        seen.append(fonts)
        return glyph_atlas(text, fonts)

    monkeypatch.setattr(characters, "glyph_atlas", spy)
    for concepts in PRETRAINING_CHARACTERS.values():
        for concept in concepts.values():
            draw(concept, 1, (0,), STILL, PLAIN)
    assert set(seen) == {PRETRAINING_FONTS}
    seen.clear()
    for concept in DRAWN["housenumbers"].concepts.values():
        draw(concept, 1, (0,), STILL, PLAIN)
    assert set(seen) == {TASK_FONTS}
    ours, theirs = (
        glyph_atlas("0123456789", fonts).reshape(-1, 10, 48 * 48) for fonts in (TASK_FONTS, PRETRAINING_FONTS)
    )
    assert np.abs(ours[:, None] - theirs[None]).mean(-1).min() > 0.01
