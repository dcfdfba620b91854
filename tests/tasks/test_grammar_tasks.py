"""Drawn text tasks: sentences of their grammars, all different, balanced, and from the generator alone."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rmtllmf_lib.errors import InputError
from rmtllmf_lib.tasks.base import require_class_names, require_templates
from rmtllmf_lib.tasks.grammar_tasks import GRAMMAR_NAMES, grammar_classes, grammar_texts
from rmtllmf_lib.tasks.grammars import GRAMMARS, Grammar
from rmtllmf_lib.tasks.sources import load_spec, load_task, parse_tasks, severities
from vectors import unhurried


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("name", GRAMMAR_NAMES)
def test_a_grammar_is_whole(name: str) -> None:
    """Every word in braces has alternatives, each of them is used, and prompts can be made of the class names."""
    grammar = GRAMMARS[name]
    require_class_names(tuple(grammar.sentences), name)
    require_templates(grammar.templates, name)
    texts = [text for sentences in grammar.sentences.values() for text in sentences]
    texts += [text for words in grammar.words.values() for text in words]
    used = {word for text in texts for word in re.findall(r"\{([^{}]+)\}", text)}
    assert used == set(grammar.words)
    assert all(text.count("{") == text.count("}") for text in texts)
    assert all(len(set(words)) == len(words) for words in grammar.words.values())


@pytest.mark.parametrize("name", GRAMMAR_NAMES)
def test_sentences_are_different_balanced_and_short(name: str) -> None:
    texts, labels = grammar_texts(name, 1500, rng=rng())
    assert len(set(texts)) == len(texts) == len(labels) == 1500
    counts = np.bincount(labels)
    assert len(counts) == len(grammar_classes(name)) and np.ptp(counts) <= 1
    for text in texts:
        assert text.isprintable() and "{" not in text and "  " not in text and text == text.strip()
        assert 2 <= len(text.split()) <= 30


@unhurried
@given(st.sampled_from(GRAMMAR_NAMES), st.integers(0, 2**32), st.integers(1, 60), st.integers(1, 60))
def test_more_sentences_begin_with_the_fewer(name: str, seed: int, fewer: int, more: int) -> None:
    one, other = (grammar_texts(name, count, rng=rng(seed)) for count in (fewer, fewer + more))
    assert other[0][:fewer] == one[0] and other[1][:fewer] == one[1]


@pytest.mark.parametrize("name", GRAMMAR_NAMES)
def test_the_words_of_a_sentence_do_not_give_its_class_away(name: str) -> None:
    """Most longer words of a sentence stand in sentences of other classes, too: the topic is not the class."""
    texts, labels = grammar_texts(name, 1200, rng=rng())
    words = [(word, label) for text, label in zip(texts, labels, strict=True)
             for word in re.findall(r"[a-z]{5,}", text.lower())]  # fmt: skip
    classes: dict[str, set[int]] = {}
    for word, label in words:
        classes.setdefault(word, set()).add(label)
    assert np.mean([len(classes[word]) > 1 for word, _ in words]) > 0.5


def test_a_season_is_that_of_its_month() -> None:
    texts, labels = grammar_texts("dates", 400, rng=rng())
    months = "January February March April May June July August September October November December".split()
    for text, label in zip(texts, labels, strict=True):
        named = [number for number, month in enumerate(months, 1) if month in text]
        found = re.search(r"\d-(\d\d)-\d|\.(\d\d)\.\d", text)
        month = named[0] if named else int(next(filter(None, found.groups())))  # type: ignore[union-attr]
        assert grammar_classes("dates")[label] == ("winter", "spring", "summer", "autumn")[month % 12 // 3]


def test_an_exhausted_grammar_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    small = Grammar("x", ("{}.",), {"a": ("{w}",), "b": ("not {w}",)}, {"w": ("one", "two")})
    monkeypatch.setitem(GRAMMARS, "small", small)  # type: ignore[arg-type]
    assert sorted(grammar_texts("small", 4, rng=rng())[0]) == ["not one", "not two", "one", "two"]
    with pytest.raises(InputError, match="5.*'a' of 'small'"):
        grammar_texts("small", 5, rng=rng())


@pytest.mark.parametrize("count", [0, -1, 1.5, None, True])
def test_bad_counts(count: object) -> None:
    with pytest.raises(InputError, match="count"):
        grammar_texts("dates", count, rng=rng())  # type: ignore[arg-type]


def test_an_unknown_task_and_a_seed_in_place_of_a_generator() -> None:
    with pytest.raises(InputError, match="'date'.*did you mean 'dates'"):
        grammar_texts("date", 3, rng=rng())
    with pytest.raises(InputError, match="'x'"):
        grammar_classes("x")
    with pytest.raises(InputError, match="rng"):
        grammar_texts("dates", 3, rng=0)  # type: ignore[arg-type]


def test_a_task_is_found_by_its_name() -> None:
    task = load_task("dates", n_train=100, n_test=40)
    assert task.class_names == grammar_classes("dates") and task.what == "texts" and task.source == "procedural"
    assert (len(task.train) + len(task.validation), len(task.test)) == (100, 40)
    texts = [text for part in (task.train, task.validation, task.test) for text in part.inputs]  # type: ignore[union-attr]
    assert len(set(texts)) == 140
    (spec,) = parse_tasks(["dates"], "procedural", None)
    again = load_spec(spec, None, seed=0, n_train=100, n_test=40)
    assert again.fingerprint == task.fingerprint and severities([spec], None) == {}


def test_more_to_train_on_leaves_the_test_as_it_is() -> None:
    few, many = (load_task("units", n_train=count, n_test=30) for count in (50, 200))
    assert few.test.inputs == many.test.inputs and few.fingerprint != many.fingerprint
    other = load_task("units", seed=1, n_train=50, n_test=30)
    assert not set(few.test.inputs) & set(other.test.inputs)  # type: ignore[arg-type]


@pytest.mark.parametrize("options", [{"n_train": 9}, {"n_test": 3001}, {"seed": -1}, {"difficulty": "hard"}])
def test_bad_settings_of_a_task(options: dict[str, object]) -> None:
    with pytest.raises(InputError, match=next(iter(options))):
        load_task("dates", **options)  # type: ignore[arg-type]
