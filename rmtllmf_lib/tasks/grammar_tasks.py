"""Eight small text tasks drawn from grammars of our own, so that a language model can be tried without any data."""

from __future__ import annotations

import re

import numpy as np

from rmtllmf_lib.arrays import numpy_generator, one_of, whole_number
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.tasks.grammars import GRAMMARS, Grammar
from rmtllmf_lib.validated import validated_call

GRAMMAR_NAMES = tuple(GRAMMARS)

_WORD = re.compile(r"\{([^{}]+)\}")
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


def _sentence(grammar: Grammar, class_name: str, rng: np.random.Generator) -> str:
    patterns = grammar.sentences[class_name]
    text = patterns[rng.integers(len(patterns))]
    while found := _WORD.search(text):
        choices = grammar.words[found[1]]
        text = text[: found.start()] + choices[rng.integers(len(choices))] + text[found.end() :]
    return " ".join(text.split())
