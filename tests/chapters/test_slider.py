"""The figure with a slider: right as it stands in the page, and right after the reader moved it, in a browser."""

import json
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from playwright.sync_api import Browser

from browser import judge, open_browser, open_page
from nbval_numbers import agree
from rmtllmf_lib.chapters.slider import InteractiveFigure, _bars, _short, slider
from rmtllmf_lib.errors import InputError

VALUES = np.array([[0.5, 0.25, 0.125], [0.05, 0.025, 0.5], [0.011, 0.002, 1.0]])


def drawn(values: np.ndarray = VALUES, **options: object) -> InteractiveFigure:
    settings = {
        "position_label": "SNR (dB)",
        "position_values": [0, 10, 20],
        "bar_labels": ["a", "b", "<c>"],
        "value_label": "MSE",
    }
    return slider(values, **(settings | options))  # type: ignore[arg-type]


def tree(figure: InteractiveFigure) -> ElementTree.Element:
    return ElementTree.fromstring(figure.markup)


def bars(figure: InteractiveFigure) -> list[tuple[float, str]]:
    """Height and text of each bar as it stands."""
    found = [each for each in tree(figure).iter("g") if each.get("class") == "bar"]
    return [(float(g.find("rect").get("height", "").rstrip("%")), g.find("text").text) for g in found]  # type: ignore


def test_bars_have_the_height_of_their_values() -> None:
    assert bars(drawn(start=1)) == [(5.0, "0.050"), (2.5, "0.025"), (50.0, "0.50")]


def test_every_position_is_in_the_page() -> None:
    frames = json.loads(tree(drawn()).get("data-frames", ""))
    assert [position for position, _ in frames] == ["0", "10", "20"]
    heights = np.array([[height for height, _ in shown] for _, shown in frames])
    assert np.allclose(heights, 100 * VALUES, atol=0.051)
    assert [text for _, text in frames[2][1]] == ["0.011", "0.0020", "1.0"]


def test_has_a_description_in_words() -> None:
    expected = "SNR (dB): 20. MSE: a: 0.011, b: 0.0020, <c>: 1.0"
    (svg,), (control,) = (list(tree(drawn(start=2)).iter(name)) for name in ("svg", "input"))
    assert (svg.get("role"), svg.get("aria-label"), control.get("aria-valuetext")) == ("img", expected, "20")


def test_a_logarithmic_axis_covers_whole_decades() -> None:
    figure = drawn(np.array([[0.01, 0.1, 10.0]] * 3), log=True)
    assert [height for height, _ in bars(figure)] == [0.0, 33.3, 100.0]
    assert len(list(tree(figure).iter("circle"))) == 3
    ticks = [text.text for text in tree(figure).iter("text") if text.get("x") == "-6"]
    assert ticks == ["0.01", "0.1", "1", "10"]


def test_many_decades_keep_few_ticks() -> None:
    figure = drawn(np.array([[1e-12, 1e-3, 1.0]] * 3), log=True)
    ticks = [text.text for text in tree(figure).iter("text") if text.get("x") == "-6"]
    assert ticks == ["10⁻¹²", "10⁻¹⁰", "10⁻⁸", "10⁻⁶", "10⁻⁴", "0.01", "1"]
    assert [height for height, _ in bars(figure)] == [0.0, 75.0, 100.0]


def test_series_stand_side_by_side_with_a_legend() -> None:
    figure = drawn(np.stack([VALUES, VALUES / 2], axis=1), series_labels=["sic", "lmmse"])
    groups = [each for each in tree(figure).iter("g") if each.get("class") == "bar"]
    places = [float(g.find("rect").get("x", "").rstrip("%")) for g in groups]  # type: ignore[union-attr]
    assert places[:3] < places[3:6]
    assert sorted(places) == [places[i] for i in (0, 3, 1, 4, 2, 5)]
    widths = [float(g.find("rect").get("width", "").rstrip("%")) for g in groups]  # type: ignore[union-attr]
    ends = sorted(zip(places, widths, strict=True))
    assert all(left + width < right for (left, width), (right, _) in zip(ends, ends[1:], strict=False))
    assert [g.find("title").text for g in groups][3] == "lmmse, a: 0.25"  # type: ignore[union-attr]
    assert "sic" in figure.markup and figure.markup.count("■") == 2


def test_all_zero_bars_have_an_axis() -> None:
    assert [height for height, _ in bars(drawn(np.zeros((3, 3))))] == [0.0, 0.0, 0.0]


@given(st.floats(1e-9, 1e9))
def test_shown_numbers_are_right_to_two_digits(number: float) -> None:
    assert float(_short(number)) == pytest.approx(number, rel=0.0501)


def test_numbers_below_the_least_are_not_shown_in_digits() -> None:
    shown = [text for _, text in _bars(np.array([0.0, 4e-35, 1e-6, 0.5]), np.zeros(4), 1e-6)]
    assert shown == ["< 1e-06", "< 1e-06", "1.0e-06", "0.50"]
    with pytest.raises(InputError, match="least is nan"):
        drawn(least=float("nan"))
    figure = drawn(np.array([[1e-9, 0.5, 1.0]] * 3), least=1e-6)
    assert "< 1e-06" in [text for _, text in bars(figure)] and "1.0e-09" not in figure.markup


def test_shown_numbers_avoid_exponents_where_they_can() -> None:
    assert [_short(x) for x in (0, 0.0012, 0.013, 0.5, 1, 12, 123, 1234, 1e-4)] == (
        ["0", "0.0012", "0.013", "0.50", "1.0", "12.0", "123.0", "1.2e+03", "1.0e-04"]
    )


@pytest.mark.parametrize(
    ("values", "options", "message"),
    [
        (VALUES[:2], {}, r"\(2, 3\).*expected .* = \(3, 1, 3\)"),
        (VALUES, {"bar_labels": ["a"]}, r"\(3, 1, 1\)"),
        (VALUES, {"series_labels": ["a", "b"]}, r"\(3, 2, 3\)"),
        (np.zeros((3, 0)), {"bar_labels": []}, "at least one"),
        (-VALUES, {}, "at least 0"),
        (0 * VALUES, {"log": True}, "positive"),
        (VALUES * np.nan, {}, "NaN"),
        (VALUES, {"start": 3}, "start is 3"),
        (VALUES, {"start": -1}, "start is -1"),
        (np.ones((3, 6, 3)), {"series_labels": list("abcdef")}, "at most 5"),
    ],
)
def test_bad_input_is_named(values: np.ndarray, options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        drawn(values, **options)


def test_is_small_and_asks_for_nothing() -> None:
    figure = drawn(np.ones((21, 8)), position_values=range(21), bar_labels=range(1, 9))
    assert len(figure.markup) < 11_000
    assert "http" not in figure.markup and "url(" not in figure.markup


def test_notebook_keeps_one_copy_that_can_be_compared() -> None:
    figure = drawn()
    assert figure._repr_html_() == figure.markup
    assert repr(figure) == "<InteractiveFigure>"
    assert agree(figure.markup, drawn(VALUES * (1 + 1e-4)).markup)
    assert not agree(figure.markup, drawn(VALUES * [1, 1.5, 1]).markup)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with open_browser() as browser:
        yield browser


@pytest.fixture
def page_of_two(tmp_path: Path) -> str:
    log = drawn(VALUES, log=True, value_label="MSE, logarithmic")
    page = tmp_path / "page.html"
    body = f"<article>{drawn(start=1).markup}<p>between</p>{log.markup}</article>"
    viewport = '<meta name="viewport" content="width=device-width">'
    page.write_text(f"<!doctype html><meta charset='utf-8'>{viewport}<title>Two</title>{body}")
    return page.as_uri()


@pytest.mark.parametrize("width", [1280, 390])
def test_fits_the_window(chromium: Browser, page_of_two: str, width: int) -> None:
    assert judge(chromium, page_of_two, width=width) == []


def test_takes_the_colours_of_the_page(chromium: Browser, tmp_path: Path) -> None:
    """The theme's where there are any, on whatever card it lays the output; else those around it."""
    page_colours, card = "--pst-color-text-base:#eee;--pst-color-background:#111", "color:#000;background:#fff"
    (tmp_path / "theme.html").write_text(f"<meta charset='utf-8'><style>:root{{{page_colours}}}</style>"
                                         f"<div style='{card}'>{drawn().markup}</div>")  # fmt: skip
    (tmp_path / "plain.html").write_text(f"<meta charset='utf-8'><div style='{card}'>{drawn().markup}</div>")
    colours = "e => [getComputedStyle(e).fill, getComputedStyle(e.closest('.slider-figure')).backgroundColor]"
    for name, expected in (
        ("theme", ["rgb(238, 238, 238)", "rgb(17, 17, 17)"]),
        ("plain", ["rgb(0, 0, 0)", "rgba(0, 0, 0, 0)"]),
    ):
        with open_page(chromium, (tmp_path / f"{name}.html").as_uri()) as (page, _):
            assert page.locator("svg text").first.evaluate(colours) == expected


def test_keys_move_one_figure_alone(chromium: Browser, page_of_two: str) -> None:
    """The first of two: its bars, texts, reading and description follow; the other stays."""
    with open_page(chromium, page_of_two) as (page, problems):
        first, second = page.locator(".slider-figure").all()
        untouched = second.inner_html()
        control = page.get_by_role("slider", name="SNR (dB)").first
        control.press("ArrowRight")
        assert first.locator(".position").inner_text() == "20"
        assert first.locator("rect").evaluate_all("all => all.map(e => e.getAttribute('height'))") == [
            "1.1%", "0.2%", "100%",
        ]  # fmt: skip
        assert first.locator(".bar text").all_text_contents() == ["0.011", "0.0020", "1.0"]
        expected = "SNR (dB): 20. MSE: a: 0.011, b: 0.0020, <c>: 1.0"
        assert first.get_by_role("img").get_attribute("aria-label") == expected
        assert control.get_attribute("aria-valuetext") == "20"
        assert first.locator("title").first.text_content() == "a: 0.011"
        bottoms = first.locator("rect").evaluate_all("all => all.map(e => e.getBoundingClientRect().bottom)")
        assert np.ptp(bottoms) < 0.5
        assert second.inner_html() == untouched
        assert problems == []


def test_moving_there_and_back_changes_nothing(chromium: Browser, page_of_two: str) -> None:
    """What the page shows first is what the slider draws at the same position."""
    label = "e => e.getAttribute('aria-label')"
    boxes = "all => all.map(e => [e.textContent, ...Object.values(e.getBoundingClientRect().toJSON())])"
    with open_page(chromium, page_of_two) as (page, problems):
        for figure in page.locator(".slider-figure").all():
            before, words = figure.locator(".bar").evaluate_all(boxes), figure.locator("svg").evaluate(label)
            figure.locator("input").press("ArrowRight")
            assert figure.locator(".bar").evaluate_all(boxes) != before
            figure.locator("input").press("ArrowLeft")
            after = figure.locator(".bar").evaluate_all(boxes)
            assert [row[0] for row in after] == [row[0] for row in before]
            assert figure.locator("svg").evaluate(label) == words
            assert np.allclose([row[1:] for row in after], [row[1:] for row in before], atol=0.1)
        assert problems == []
