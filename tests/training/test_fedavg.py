"""Federated averaging: rounds over a link, and its first round as task arithmetic."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import pytest
import torch

from rmtllmf_lib.errors import InputError
from rmtllmf_lib.fusion.arithmetic import fuse
from rmtllmf_lib.model.backbone import Backbone, fresh_tower
from rmtllmf_lib.model.task_vector import TaskVector, Weights
from rmtllmf_lib.tasks.base import Task
from rmtllmf_lib.training import fedavg
from rmtllmf_lib.training.evaluate import accuracy
from rmtllmf_lib.training.fedavg import Round, federated_averaging
from rmtllmf_lib.training.finetune import finetune
from rmtllmf_lib.training.heads import Head, build_head
from rmtllmf_lib.training.loading import Schedule, normalize
from rmtllmf_lib.transport.scenario import Scenario
from small import SHORT, generator, small_head, small_task

pytestmark = pytest.mark.usefixtures("one_thread")

RECIPE = replace(SHORT, steps=3, warmup_steps=0)
SR = Scenario("SR", 0.21, "task", "half")


@dataclass
class Recording:
    """A link that remembers what was sent, and delivers it as another one does."""

    through: Scenario | None = None
    sent: list[list[TaskVector]] = field(default_factory=list)
    bases: list[Weights] = field(default_factory=list)

    def receive(self, taus: Sequence[TaskVector], base: Weights, *, generator: torch.Generator) -> list[TaskVector]:
        self.sent.append([*taus])
        self.bases.append(base)
        return [*taus] if self.through is None else self.through.receive(taus, base, generator=generator)


@pytest.fixture(scope="module")
def tasks() -> Mapping[str, Task]:
    return {name: small_task(name, seed) for seed, name in enumerate("abc")}


@pytest.fixture(scope="module")
def heads(backbone: Backbone, tasks: Mapping[str, Task]) -> Mapping[str, Head]:
    return {name: build_head(backbone, task, "prototype") for name, task in tasks.items()}


def test_one_round_is_task_arithmetic_bit_for_bit(
    backbone: Backbone, tasks: Mapping[str, Task], heads: Mapping[str, Head], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The vectors of `finetune`, as for a suite, merged with lambda = 1/N; the next round starts from there."""
    taus = {name: finetune(backbone, tasks[name], heads[name], SHORT, generator=generator(7)) for name in tasks}
    expected = fuse(backbone.weights, [*taus.values()], 1 / 3)
    monkeypatch.setattr(fedavg, "generator_for", lambda *_: generator(7))  # the seed of every user's own training
    (only,) = federated_averaging(backbone, tasks, heads, SHORT, 1, generator=generator())
    assert torch.equal(only.model.values, expected.values) and only.model.origin == backbone.weights.hash
    *_, second = federated_averaging(backbone, tasks, heads, SHORT, 2, generator=generator())
    changes = [
        finetune(backbone, tasks[name], heads[name], SHORT, start=expected, generator=generator(7)) for name in tasks
    ]
    assert torch.equal(second.model.values, fuse(expected, changes, 1 / 3).values)
    received = SR.receive([*taus.values()], backbone.weights, generator=generator(7))
    (noisy,) = federated_averaging(backbone, tasks, heads, SHORT, 1, link=SR, generator=generator())
    assert torch.equal(noisy.model.values, fuse(backbone.weights, received, 1 / 3).values)


def test_rounds_go_on_where_the_last_one_ended(
    backbone: Backbone, tasks: Mapping[str, Task], heads: Mapping[str, Head]
) -> None:
    link = Recording()
    run = partial(federated_averaging, backbone, tasks, heads, RECIPE)
    rounds = list(run(3, link=link, generator=generator()))
    assert [each.number for each in rounds] == [1, 2, 3]
    size = backbone.weights.layout.size
    assert [each.uses for each in rounds] == [-(-size // 2) * n for n in (1, 2, 3)]
    assert [each.uses for each in run(2, upload_uses=7, generator=generator())] == [7, 14]
    models = [backbone.weights, *(each.model for each in rounds)]
    for before, after, sent, base in zip(models, models[1:], link.sent, link.bases, strict=False):
        assert base is before and len(sent) == 3
        assert torch.equal(after.values, fuse(before, sent, 1 / 3).values)
    assert len({tau.hash for sent in link.sent for tau in sent}) == 9  # every user and round draws batches of its own


def test_errors_on_every_upload(backbone: Backbone, tasks: Mapping[str, Task], heads: Mapping[str, Head]) -> None:
    clean, noisy = Recording(), Recording(SR)
    run = partial(federated_averaging, backbone, tasks, heads, RECIPE, 2)
    without, attacked = (list(run(link=link, generator=generator(1))) for link in (clean, noisy))
    alike = zip(clean.sent[0], noisy.sent[0], strict=True)
    assert all(torch.equal(one.values, other.values) for one, other in alike)  # training does not see the noise
    assert not torch.equal(clean.sent[1][0].values, noisy.sent[1][0].values)
    for k in range(2):
        error = attacked[k].model - fuse(noisy.bases[k], noisy.sent[k], 1 / 3)
        rms = sum(tau.rms**2 for tau in noisy.sent[k]) ** 0.5 / 3  # of the mean of independent errors at an MSE of 1
        assert 0.9 < error.rms / (rms * 0.21**0.5) < 1.5
    assert torch.equal(without[0].model.values, next(run(generator=generator(1))).model.values)


def test_it_learns_all_tasks(backbone: Backbone) -> None:
    tasks = {name: small_task(name, seed) for seed, name in enumerate("ab")}
    heads = {name: small_head(seed) for seed, name in enumerate("ab")}
    recipe = replace(SHORT, steps=10, lr=2e-3, weight_decay=0.0)

    def mean(model: Weights) -> float:
        return sum(accuracy(backbone, model, tasks[name].test, heads[name]) for name in tasks) / 2

    found = [mean(each.model) for each in federated_averaging(backbone, tasks, heads, recipe, 5, generator=generator())]
    assert found[-1] > 0.9 > found[0]


def test_the_proximal_term_is_that_of_the_definition(backbone: Backbone, task: Task, head: Head) -> None:
    """The same steps with the gradient `rho (theta - start)` added by hand."""
    rho, start = 3.0, backbone.weights + 0.3 * finetune(backbone, task, head, SHORT, generator=generator(9))
    recipe = replace(SHORT, freeze=(), clip_norm=None, weight_decay=0.0)
    tau = finetune(backbone, task, head, recipe, start=start, proximal=rho, generator=generator(3))
    schedule = Schedule.draw(len(task.train), recipe.steps, recipe.batch_size, generator(3))
    tower = fresh_tower(backbone, start).requires_grad_(True)
    origin = [parameter.detach().clone() for parameter in tower.parameters()]
    optimizer = torch.optim.AdamW(tower.parameters(), lr=1.0, weight_decay=0.0, fused=False, foreach=False)
    assert isinstance(task.train.inputs, torch.Tensor)
    for step in range(recipe.steps):
        chosen = schedule.indices(step)
        features = torch.nn.functional.normalize(tower(normalize(task.train.inputs[chosen], backbone)), dim=1)
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(
            head.logit_scale * features @ head.weight.T, task.train.labels[chosen]
        ).backward()
        for parameter, before in zip(tower.parameters(), origin, strict=True):
            assert parameter.grad is not None
            parameter.grad += rho * (parameter.detach() - before)
        optimizer.param_groups[0]["lr"] = recipe.lr_at(step)
        optimizer.step()
    expected = Weights.from_module(tower) - start
    free = finetune(backbone, task, head, recipe, start=start, generator=generator(3))
    distance = (TaskVector(tau.layout, tau.values - expected.values, tau.base_hash)).norm
    assert distance < 2e-2 * tau.norm < 0.5 * (tau - free).norm


def test_fedprox_stays_nearer(backbone: Backbone, tasks: Mapping[str, Task], heads: Mapping[str, Head]) -> None:
    link = {rho: Recording() for rho in (0.0, 100.0)}
    for rho, each in link.items():
        list(federated_averaging(backbone, tasks, heads, SHORT, 1, link=each, proximal=rho, generator=generator()))
    free, tied = (each.sent[0] for each in link.values())
    assert all(one.norm > 1.2 * other.norm > 0 for one, other in zip(free, tied, strict=True))


def test_bad_input_is_named(backbone: Backbone, tasks: Mapping[str, Task], heads: Mapping[str, Head]) -> None:
    def refused(message: str, **changes: object) -> None:
        given = {"backbone": backbone, "tasks": tasks, "heads": heads, "recipe": RECIPE, "rounds": 1, **changes}
        with pytest.raises(InputError, match=message):
            next(federated_averaging(**given, generator=generator()))  # type: ignore[arg-type]

    refused("rounds is 0", rounds=0)
    refused("there are no tasks", tasks={})
    refused("no head for c", heads={name: heads[name] for name in "ab"})
    refused("proximal is -1", proximal=-1.0)
    refused("upload_uses is 0", upload_uses=0)
    refused("mse", link=Scenario("two users", (0.1, 0.2), "task"))
    refused("link is", link="SR")
    with pytest.raises(InputError, match="proximal is"):
        finetune(backbone, tasks["a"], heads["a"], RECIPE, proximal=-0.5, generator=generator())
    assert isinstance(next(federated_averaging(backbone, tasks, heads, RECIPE, 1, generator=generator())), Round)
