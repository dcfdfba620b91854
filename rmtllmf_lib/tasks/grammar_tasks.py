"""Eight small text tasks drawn from grammars of our own, so that a language model can be tried without any data."""

from __future__ import annotations

import re

import numpy as np
import torch

from rmtllmf_lib.arrays import numpy_generator, one_of, seed_number, whole_number
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.tasks.base import Split, Task, carve_validation, fingerprint
from rmtllmf_lib.tasks.grammars import GRAMMARS, Grammar
from rmtllmf_lib.validated import validated_call

GRAMMAR_NAMES = tuple(GRAMMARS)

_WORD = re.compile(r"\{([^{}]+)\}")
TRAIN, TEST = 1000, 400  # sentences of a task, the validation sentences among the former
LARGEST = 3000  # sentences of one part, well below what the smallest grammar has

_TRIES = 50  # for each sentence that has not been drawn yet


@validated_call
def grammar_texts(name: str, count: int, *, rng: np.random.Generator) -> tuple[list[str], list[int]]:
    """Sentences of one of the drawn tasks, all different, with their classes in turn.

    Parameters
    ----------
    name : str
        One of `GRAMMAR_NAMES`.
    count : int
        Sentences, at least 1.
    rng : numpy Generator
        More sentences from the same state begin with the fewer.

    Returns
    -------
    texts : list of str
    labels : list of int
        Positions among `grammar_classes(name)`.

    Raises
    ------
    InputError
        for an unknown task, a count below 1, or more sentences than the grammar has.
    """
    grammar = GRAMMARS[one_of(name, GRAMMARS, "drawn text task")]
    whole_number(count, "count")
    numpy_generator(rng)
    classes, texts = tuple(grammar.sentences), dict[str, int]()
    for number in range(count):
        label = number % len(classes)
        for _ in range(_TRIES):
            text = _sentence(grammar, classes[label], rng)
            if text not in texts:
                texts[text] = label
                break
        else:
            raise InputError(
                f"count is {count}, and {_TRIES} sentences in a row for {classes[label]!r} of {name!r} had been drawn "
                f"before, after {number}: expected fewer"
            )
    return list(texts), list(texts.values())


@validated_call
def grammar_classes(name: str) -> tuple[str, ...]:
    """Class names of one of the drawn tasks, in the order of its labels; `InputError` for an unknown one."""
    return tuple(GRAMMARS[one_of(name, GRAMMARS, "drawn text task")].sentences)


@validated_call
def grammar_task(name: str, *, seed: int = 0, n_train: int | None = None, n_test: int | None = None) -> Task:
    """One of the eight drawn text tasks.

    Parameters
    ----------
    name : str
        One of `GRAMMAR_NAMES`.
    seed : int
        Draws other sentences of the same task.
    n_train, n_test : int, optional
        Sentences in train (with validation) and in test; default 1,000 and 400. No sentence stands in both.

    Raises
    ------
    InputError
        for an unknown name, a negative seed, or fewer than 10 or more than 3,000 sentences.
    """
    grammar = GRAMMARS[one_of(name, GRAMMARS, "drawn text task")]
    seed_number(seed)
    count = TRAIN if n_train is None else whole_number(n_train, f"n_train of task {name!r}", 10, LARGEST)
    tested = TEST if n_test is None else whole_number(n_test, f"n_test of task {name!r}", 10, LARGEST)
    rng = np.random.default_rng([seed, *name.encode()])
    texts, labels = grammar_texts(name, tested + count, rng=rng)  # the test does not depend on how much is trained on
    parts = slice(tested), slice(tested, None)
    test, train = (Split(tuple(texts[part]), torch.tensor(labels[part])) for part in parts)
    kept, held_out = carve_validation(train.labels, seed=seed, keys=texts[tested:])
    class_names = tuple(grammar.sentences)
    return Task(
        name, grammar.title, class_names, grammar.templates, train.subset(kept), train.subset(held_out), test,
        "procedural", fingerprint([texts, labels, tested, seed, class_names, grammar.templates]),
    )  # fmt: skip


def _sentence(grammar: Grammar, class_name: str, rng: np.random.Generator) -> str:
    patterns = grammar.sentences[class_name]
    text = patterns[rng.integers(len(patterns))]
    while found := _WORD.search(text):
        choices = grammar.words[found[1]]
        text = text[: found.start()] + choices[rng.integers(len(choices))] + text[found.end() :]
    return " ".join(text.split())
