"""Printed characters: house numbers (counterpart of SVHN), and letters and digits for pre-training."""

from __future__ import annotations

from functools import partial

import numpy as np

from rmtllmf_lib.tasks.embedded.draw import PRETRAINING_FONTS, TASK_FONTS, Canvas, glyph_atlas

DIGITS = "0123456789"
DIGIT_NAMES: tuple[str, ...] = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
LETTERS = "abcdefghijklmnopqrstuvwxyz"


def house_number(c: Canvas, digit: int, fonts: tuple[str, ...] = PRETRAINING_FONTS) -> None:
    """Draw a digit on a wall; its neighbours are cut off by the frame and sometimes missing."""
    atlas = glyph_atlas(DIGITS, fonts)
    ink, wall = c.contrasting()
    c.fill(wall, 0.25, 3)
    font = c.rng.integers(0, len(fonts), c.n) * 10
    for u in (-1.0, 1.0):
        neighbour = c.glyph(atlas, font + c.rng.integers(0, 10, c.n), u * c.uniform(0.95, 1.15), 0.0, 0.75)
        c.paint(neighbour * c.coin(0.7)[:, None, None], ink)
    c.paint(c.glyph(atlas, font + digit, 0.0, 0.0, 0.75), ink)


def pen_digit(c: Canvas, digit: int) -> None:
    """Draw a pale, bent stroke on black: the handwriting of pre-training."""
    bend = (0.12 * np.sin(2.5 * c.v + c.level(0, 6))).astype(np.float32)
    c.u = c.u + bend * c.level(-1, 1) + c.level(-0.25, 0.25) * c.v
    atlas = glyph_atlas(DIGITS, PRETRAINING_FONTS)
    font = c.rng.integers(0, len(PRETRAINING_FONTS), c.n) * 10
    c.paint(c.glyph(atlas, font + digit, 0.0, 0.0, 0.95), c.colour((0, 1), (0, 0.05), (0.6, 1.0)))


def letter(c: Canvas, which: int) -> None:
    """Draw a printed letter on a plain ground."""
    atlas = glyph_atlas(LETTERS, PRETRAINING_FONTS)
    ink, page = c.contrasting()
    c.fill(page, 0.15, 3)
    font = c.rng.integers(0, len(PRETRAINING_FONTS), c.n) * len(LETTERS)
    c.paint(c.glyph(atlas, font + which, 0.0, 0.0, 0.8), ink)


HOUSE_NUMBERS = {name: partial(house_number, digit=k) for k, name in enumerate(DIGIT_NAMES)}
TASK_HOUSE_NUMBERS = {name: partial(house_number, digit=k, fonts=TASK_FONTS) for k, name in enumerate(DIGIT_NAMES)}
PEN_DIGITS = {name: partial(pen_digit, digit=k) for k, name in enumerate(DIGIT_NAMES)}
PRINTED_LETTERS = {name: partial(letter, which=k) for k, name in enumerate(LETTERS)}
