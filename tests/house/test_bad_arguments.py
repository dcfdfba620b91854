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

# Bad arguments that are accepted, with the reason.
_NOTHING = "nothing in, nothing out"
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
    ("model.fusion.fuse", "lam", "below zero"): _NEGATION,
    ("model.checkpoints.from_hugging_face", "state_dict", "empty"): _NOTHING,
    ("model.checkpoints.task_vector_from_published", "info", "empty"): "no metadata are added",
    ("model.backbone.WordTokenizer", "words", "empty"): "it knows no word",
    ("model.task_vector.TaskVector", "info", "empty"): "results of algebra have none",
    ("protection.memory.Memory", "splits", "empty"): _NOTHING,
    ("protection.memory.Memory.of", "names", "empty"): _NOTHING,
    ("protection.resilience.Protection", "freeze", "empty"): "everything is trained",
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
    ("protection.resilience.reload_embeddings", "kinds", "empty"): "no kind is reloaded",
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
    ("study.study.Study", "scenarios", "empty"): "some protections ignore the link",
    ("study.study.Study", "lam", "empty"): "checked with the suite, which says the numbers of tasks",
    ("study.study.Study", "lr", "empty"): "every protection has the recipe's",
    ("study.study.Study", "lr_grid", "empty"): "no learning rate is chosen",
    ("study.study.sample_combinations", "sizes", "empty"): _NOTHING,
    ("study.study.study_units", "rates", "empty"): "every condition has the study's",
}

# Steps inside the loops of checked functions, where a check would be repeated thousands of times.
INNER = {
    "disentanglement.linearise.Network.differentiable",
    "model.differentiable_tower.forward", "model.differentiable_tower.steps", "model.gram.inner_products",
    "model.layout.require_float", "model.tower.cut", "model.tower.embed", "model.tower.encode", "model.tower.patchify",
    "threads.map_pieces", "threads.ordered", "threads.single_threads",
}  # fmt: skip

# Not decided yet, package by package: checks are still to come, or good values in tests/helpers/bad_arguments.py.
UNDECIDED = {
    "tasks": """
        assemble.assemble_task base.Split base.Split.subset base.Task base.carve_validation base.fingerprint
        base.hash_fraction base.pinned_sample base.require_class_names base.require_templates
        base.stratified_counts base.validation_count folder.class_folders folder.find_folder
        folder.holds_task folder.is_image folder.natural_key folder.read_classes folder.read_folder
        folder.read_templates images.decode_images images.inspect_files images.opened
        images.require_decodable images.require_regular images.resize_batch images.resize_image
        images.to_rgb prompts.prompts_for prompts.readable_name sources.load_spec sources.load_task
        sources.parse_tasks vision.pinned_split vision.read_data_set vision.read_idx vision.require_entries
    """,
    "training": """
        combinations.choose_lambdas combinations.evaluate_combinations combinations.normalized_accuracy
        combinations.task_combinations evaluate.accuracy evaluate.predictions evaluate.prepare
        finetune.Recipe finetune.Recipe.lr_at finetune.finetune finetune.precision finetune.recipe_for
        finetune.training_step heads.Head.require_classes heads.build_head loading.Schedule loading.batches
        loading.crop_box loading.cropped_pixels loading.normalize loading.pixels loading.training_batches
        pretrain.PretrainRecipe pretrain.caption_batch pretrain.clip_loss pretrain.pretrain
        pretrain.zero_shot_table suite.Suite.accuracies suite.Suite.fuse suite.Suite.known suite.Suite.score
        suite.Suite.train suite.assemble_suite suite.load_suite
    """,
    "transport": """
        digital.Coded digital.Pcm digital.RawFloat link.send modulation.bits_of modulation.decode
        modulation.expected_symbols modulation.nearest modulation.posterior_mean modulation.symbols_of
        modulation.transition quantise.dequantise quantise.interval_probability quantise.quantise
        scenario.Scenario scenario.Scenario.error_cov scenario.Scenario.receive scenario.noise_to_signal
        scheme.checked scheme.padded schemes.Analog schemes.Pam statistics.require_vectors
        surrogate.error_covariance surrogate.surrogate
    """,
    "wireless": """
        adversary.attacked_cov adversary.jammer_power allocation.allocate_unit_budget
        allocation.counted_twice channel.Uplink channel.array_shape channel.complex_normal
        channel.draw_distances channel.draw_fading channel.exponential_correlation channel.require_uplink
        channel.uplinks_at channel.with_floor minimax.minimax minimax.minimax_sic optimality.saddle_margins
        path_loss.PathLoss path_loss.cell_db receiver.require_noise_cov simulate.covariance_root
        simulate.decide simulate.draw_symbols square_root.adjoint square_root.factors square_root.filters
        square_root.log_gains square_root.precision square_root.require_semidefinite square_root.thin_svd
        square_root.whiten
    """,
}

DECIDED = ("model.", "protection.", "disentanglement.", "storage.", "study.")

FUNCTIONS = public_functions()
LISTED = {f"{package}.{name}" for package, names in UNDECIDED.items() for name in names.split()}


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # some functions write where they are told to


@pytest.mark.parametrize("path", sorted(FUNCTIONS.keys() - LISTED - INNER))
def test_a_bad_argument_gets_a_clear_error(path: str) -> None:
    found = faults(path, FUNCTIONS[path])
    assert {call: fault for call, fault in found.items() if call not in ACCEPTED} == {}
    assert {call for call in ACCEPTED if call[0] == path} <= found.keys(), "no longer accepted: take it off ACCEPTED"


@pytest.mark.parametrize("path", sorted(LISTED & FUNCTIONS.keys()))
def test_what_is_listed_as_undecided_is(path: str) -> None:
    try:
        found = faults(path, FUNCTIONS[path])
    except LookupError:
        return  # its good values are still to come
    assert found, "every bad argument gets a clear error: take the function off UNDECIDED"


def test_the_lists_name_functions_that_exist() -> None:
    assert sorted((LISTED | INNER | {call[0] for call in ACCEPTED}) - FUNCTIONS.keys()) == []
    assert {path for path in LISTED if path.startswith(DECIDED)} == set()
