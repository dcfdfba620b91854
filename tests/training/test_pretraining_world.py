"""What pre-training draws and says covers the eight embedded tasks, except their fonts."""

from collections.abc import Callable

import pytest
import torch

from rmtllmf_lib.model.backbone import WordTokenizer, load_backbone
from rmtllmf_lib.tasks.base import TASK_NAMES, Task
from rmtllmf_lib.tasks.embedded.draw import TASK_FONTS
from rmtllmf_lib.tasks.embedded.procedural import procedural_task
from rmtllmf_lib.training.pretrain import CONTEXT_LENGTH, WORLD, draw_pairs, vocabulary


@pytest.fixture(scope="module")
def tasks() -> list[Task]:
    return [procedural_task(name, n_train=20, n_test=10) for name in TASK_NAMES]


def _shipped() -> WordTokenizer:
    tokenizer = load_backbone("tiny").tokenizer
    assert isinstance(tokenizer, WordTokenizer)
    return tokenizer


@pytest.mark.parametrize("tokenizer", [lambda: WordTokenizer(vocabulary(), CONTEXT_LENGTH), _shipped])
def test_every_prompt_and_caption_can_be_read(tasks: list[Task], tokenizer: Callable[[], WordTokenizer]) -> None:
    """An unknown word, or one too many, would raise."""
    read = tokenizer()
    for task in tasks:
        prompts = [template.format(c) for template in task.templates for c in task.class_names]
        assert len(torch.unique(read(prompts), dim=0)) == len(prompts)
    for domain in WORLD:
        captions = [caption.format(c) for caption in domain.captions for c in domain.concepts]
        assert len(torch.unique(read([*captions, domain.generic]), dim=0)) == len(captions) + 1


def test_pretraining_knows_the_classes_of_every_task(tasks: list[Task]) -> None:
    worlds = [set(domain.concepts) for domain in WORLD]
    for task in tasks:
        assert any(set(task.class_names) <= world for world in worlds), task.name


def test_pretraining_never_sees_the_fonts_of_the_tasks() -> None:
    for domain in WORLD:
        for concept in domain.concepts.values():
            assert getattr(concept, "keywords", {}).get("fonts") != TASK_FONTS


def test_images_are_those_that_the_base_was_trained_on() -> None:
    """Mean of red, green, blue; standard deviation; mean step from row to row. Bits may differ between processors."""
    levels = draw_pairs(640, 0)[0].float()
    rows = (levels[:, :, 1:] - levels[:, :, :-1]).abs().mean()
    found = [*levels.mean((0, 2, 3)).tolist(), levels.std().item(), rows.item()]
    assert found == pytest.approx((112.45, 115.27, 111.20, 66.32, 13.53), abs=0.02)
