"""Every public function answers a bad argument with a clear error, or what it does with it is documented.

Clear is an `InputError`, or a `TypeError` that names the argument. `tests/helpers/bad_arguments.py` finds the functions
and calls each with one bad argument at a time; it holds the good values for the others. A new function is found by
itself, and needs its good values there if its parameters have names of their own. `validated.validated_call` checks
types, None, NaN and single items; the function checks ranges.
"""

from collections.abc import Mapping
from pathlib import Path

import pytest

from bad_arguments import Call, faults, public_functions
from rmtllmf_lib.training import pretrain

# Bad arguments that are accepted, with the reason.
_DECIBELS = "a ratio in dB may be below 0"
_SCALAR = "() is the shape of a single number"
_NOTHING = "nothing in, nothing out"
_TYPED = "a difficulty may be typed as text"
_NEGATION = "a coefficient below 0 negates a task, as in Eq. (6)"
_USED = "checked by the protection that uses it"
ACCEPTED: Mapping[Call, str] = {
    ("disentanglement.noisy_logits.linearisation_error", "perturbed", "empty"): _NOTHING,
    ("disentanglement.wde.images_of", "names", "empty"): _NOTHING,
    ("disentanglement.wde.own_classes", "images", "empty"): _NOTHING,
    ("disentanglement.wde.predict_wde_increment", "models", "empty"): _NOTHING,
    ("disentanglement.wde.noise_std", "lam", "below zero"): _NEGATION,
    ("disentanglement.wde.own_classes", "lam", "below zero"): _NEGATION,
    ("disentanglement.wde.predict_wde_increment", "lam", "below zero"): _NEGATION,
    ("disentanglement.wde.wde", "lam", "below zero"): _NEGATION,
    ("disentanglement.wde.wde", "own_lam", "below zero"): _NEGATION,
    ("tasks.base.fingerprint", "parts", "empty"): _NOTHING,
    ("tasks.folder.read_classes", "classes", "empty"): "a file that names a class is refused then",
    ("tasks.images.decode_images", "images", "empty"): _NOTHING,
    ("tasks.images.inspect_files", "paths", "empty"): _NOTHING,
    ("tasks.images.require_decodable", "several", "empty"): _NOTHING,
    ("tasks.inventory.pin_state", "pins", "empty"): "nothing is pinned yet, so what is there is new",
    ("tasks.sources.parse_tasks", "texts", "empty"): _NOTHING,
    ("tasks.vision.pinned_split", "keys", "empty"): _NOTHING,
    ("training.finetune.Recipe", "freeze", "empty"): "everything is trained",
    ("training.finetune.train", "run", "empty"): "what is known decides the run",
    ("training.finetune.with_accuracy", "info", "empty"): "the accuracy alone",
    ("training.loading.require_tasks", "tasks", "empty"): _NOTHING,
    ("training.merging.merge_suite", "splits", "empty"): "most mergers need no images",
    ("training.suite.Suite.accuracies", "names", "empty"): _NOTHING,
    ("training.suite.Suite.fuse", "lam", "below zero"): _NEGATION,
    ("training.suite.Suite.known", "names", "empty"): _NOTHING,
    ("training.suite.Suite.score", "models", "empty"): "the fine-tuned models alone",
    ("training.suite.assemble_suite", "specs", "empty"): _NOTHING,
    ("training.suite.assemble_suite", "taus", "empty"): "tasks without vectors, as before they are trained",
    ("fusion.arithmetic.fuse", "lam", "below zero"): _NEGATION,
    ("model.hugging_face.from_hugging_face", "state_dict", "empty"): _NOTHING,
    ("model.checkpoints.task_vector_from_published", "info", "empty"): "no metadata are added",
    ("model.backbone.WordTokenizer", "words", "empty"): "it knows no word",
    ("model.task_vector.TaskVector", "info", "empty"): "results of algebra have none",
    ("protection.few_shot_basis.received_cores", "numbers", "empty"): _NOTHING,
    ("protection.memory.Memory", "splits", "empty"): _NOTHING,
    ("protection.memory.Memory.of", "names", "empty"): _NOTHING,
    ("protection.resilience.Protection", "freeze", "empty"): "everything is trained",
    ("protection.resilience.Protection", "sends", "empty"): _USED,
    ("protection.resilience.Station", "outage", "empty"): "everything arrived",
    ("protection.resilience.Station", "received", "empty"): _USED,
    ("protection.resilience.Station", "lam", "below zero"): _NEGATION,
    ("protection.resilience.Station", "heads", "empty"): _USED,
    ("protection.resilience.Station", "error_cov", "NaN"): _USED,
    ("model.layout.listing", "items", "empty"): "it says 0",
    ("model.tensor_file.checksum", "tensors", "empty"): "the checksum of the metadata alone",
    ("model.tensor_file.checksum", "metadata", "empty"): "the checksum of the tensors alone",
    ("model.tensor_file.write_own", "tensors", "empty"): "a file of metadata alone",
    ("model.tensor_file.write_own", "metadata", "empty"): "reading it names what is missing",
    ("model.tensor_file.write_sealed", "tensors", "empty"): "a file of metadata alone",
    ("model.tensor_file.write_sealed", "metadata", "empty"): "a file of tensors alone",
    ("model.vector_info.checked_info", "info", "empty"): "there is nothing to check",
    ("protection.embeddings.reload_embeddings", "kinds", "empty"): "no kind is reloaded",
    ("transport.coded_payload.deliver", "taus", "empty"): _NOTHING,
    ("transport.coded_payload.plans", "taus", "empty"): _NOTHING,
    ("transport.mcs.mse_of", "snr_db", "below zero"): _DECIBELS,
    ("transport.mcs.word_errors", "snr_db", "below zero"): _DECIBELS,
    ("transport.scenario.Scenario.error_cov", "taus", "empty"): _NOTHING,
    ("transport.scenario.Scenario.receive", "taus", "empty"): _NOTHING,
    ("transport.statistics.require_vectors", "taus", "empty"): _NOTHING,
    ("transport.surrogate.error_covariance", "taus", "empty"): _NOTHING,
    ("transport.surrogate.surrogate", "taus", "empty"): _NOTHING,
    ("wireless.adversary.jammer_power", "jnr_db", "below zero"): _DECIBELS,
    ("wireless.channel.array_shape", "shape", "empty"): _SCALAR,
    ("wireless.channel.complex_normal", "shape", "empty"): _SCALAR,
    ("wireless.channel.draw_distances", "shape", "empty"): _SCALAR,
    ("wireless.channel.draw_fading", "rician_k_db", "below zero"): _DECIBELS,
    ("wireless.channel.uplinks_at", "rician_k_db", "below zero"): _DECIBELS,
    ("wireless.channel.with_floor", "gain_db", "below zero"): _DECIBELS,
    ("wireless.simulate.draw_symbols", "shape", "empty"): _SCALAR,
    ("storage.canonical.config_key", "config", "empty"): "what depends on nothing has a key as well",
    ("storage.tensors.save_tensors", "tensors", "empty"): "a file of metadata alone",
    ("storage.tensors.save_tensors", "metadata", "empty"): "a file of tensors alone",
    ("study.compare.gap", "one", "empty"): "all rows",
    ("study.compare.gap", "other", "empty"): "all rows",
    ("study.compare.gap", "by", "empty"): "one row for all",
    ("study.compare.surely_above", "level", "below zero"): "a difference may be negative",
    ("study.interference.cosine_study", "lam", "below zero"): _NEGATION,
    ("study.interference.effective_vectors", "lam", "below zero"): _NEGATION,
    ("study.interference.wde_under", "lam", "below zero"): _NEGATION,
    ("study.intervals.require_columns", "names", "empty"): _NOTHING,
    ("study.parts.build_parts", "configs", "empty"): _NOTHING,
    ("recorded.shown", "value", "a number as text"): "a recorded text",
    ("recorded.shown", "value", "below zero"): "any number",
    ("wireless.linear_array.draw_places", "shape", "empty"): "one place",
    ("study.file.SuiteSpec", "difficulty", "a number as text"): _TYPED,
    ("study.study.run_study", "grid", "empty"): "the study's own settings",
    ("tasks.sources.severities", "difficulty", "a number as text"): _TYPED,
    ("tasks.sources.load_task", "difficulty", "a number as text"): _TYPED,
    ("study.study.Study", "scenarios", "empty"): "some protections ignore the link",
    ("study.study.Study", "lam", "empty"): "checked with the suite, which says the numbers of tasks",
    ("study.study.Study", "lr", "empty"): "every protection has the recipe's",
    ("study.study.Study", "lr_grid", "empty"): "no learning rate is chosen",
    ("study.study.Study", "lam_grid", "empty"): "no lambda is chosen",
    ("study.study.study_units", "chosen", "empty"): "every condition has the study's",
    ("study.study.run_study", "chosen", "empty"): "every condition has the study's",
    ("study.suites.run_over_suites", "chosen", "empty"): "every condition has the study's",
    ("study.suites.leads", "controls", "empty"): "accuracies alone",
    ("study.suites.grid_ends", "lr_grid", "empty"): "no learning rate was chosen",
    ("study.suites.grid_ends", "lam_grid", "empty"): "no lambda was chosen",
}

# Steps inside the loops of checked functions, where a check would be repeated thousands of times.
INNER = {
    "disentanglement.linearise.Network.differentiable",
    "fusion.entries.agreeing", "fusion.tensors.by_entry", "fusion.tensors.by_name", "fusion.tensors.by_tensor",
    "fusion.tensors.magnitude_of_rank", "fusion.tensors.mean", "fusion.tensors.nearest_orthonormal",
    "fusion.tensors.singular_triplets", "fusion.tensors.symmetric_power", "fusion.tensors.weighted_sum",
    "model.differentiable_tower.forward", "model.differentiable_tower.steps", "model.gram.inner_products",
    "model.differentiable_tower.features", "model.layout.require_float",
    "model.tower.cut", "model.tower.embed", "model.tower.encode", "model.tower.patchify",
    "tasks.base.hash_fraction", "tasks.base.take", "tasks.folder.natural_key",
    "training.finetune.training_step", "training.loading.crop_box", "training.loading.cropped_pixels",
    "training.loading.inputs", "training.loading.normalize", "training.loading.pixels",
    "training.pretrain.caption_batch", "training.pretrain.clip_loss",
    "threads.map_pieces", "threads.ordered", "threads.single_threads", "wireless.allocation.allocate_unit_budget",
    "wireless.square_root.adjoint", "wireless.square_root.factors", "wireless.square_root.filters",
    "wireless.square_root.log_gains", "wireless.square_root.precision", "wireless.square_root.require_semidefinite",
    "wireless.square_root.thin_svd", "wireless.square_root.whiten",
}  # fmt: skip

FUNCTIONS = public_functions()


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # some functions write where they are told to
    monkeypatch.setattr(pretrain, "TASK_NAMES", ("digits",))  # drawing all eight takes long


@pytest.mark.parametrize("path", sorted(FUNCTIONS.keys() - INNER))
def test_a_bad_argument_gets_a_clear_error(path: str) -> None:
    found = faults(path, FUNCTIONS[path])
    assert {call: fault for call, fault in found.items() if call not in ACCEPTED} == {}
    assert {call for call in ACCEPTED if call[0] == path} <= found.keys(), "no longer accepted: take it off ACCEPTED"


def test_the_lists_name_functions_that_exist() -> None:
    assert sorted((INNER | {call[0] for call in ACCEPTED}) - FUNCTIONS.keys()) == []
