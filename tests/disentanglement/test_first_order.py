"""Norms and margins against explicit Jacobians; samples with the covariance they should have."""

import numpy as np
import pytest

from gaussians import random_jacobian, random_model
from rmtllmf_lib.disentanglement.first_order import FirstOrder, noise_level
from rmtllmf_lib.errors import InputError


def test_norms_are_those_of_the_rows() -> None:
    jacobian, model = random_jacobian(4, 5, 0), random_model()
    np.testing.assert_allclose(model.row_norms, np.linalg.norm(jacobian, axis=2))
    reference = np.array([0, 4, 2, 1])
    differences = jacobian - jacobian[np.arange(4), reference][:, None]
    np.testing.assert_allclose(model.difference_norms(reference), np.linalg.norm(differences, axis=2), atol=1e-6)
    np.testing.assert_allclose(
        model.difference_gram(reference), differences @ differences.swapaxes(1, 2), atol=1e-12 * model.gram.max()
    )
    own = jacobian[np.arange(4), model.logits.argmax(1)][:, None]
    np.testing.assert_allclose(model.difference_norms(), np.linalg.norm(jacobian - own, axis=2), atol=1e-6)


def test_margins_are_to_the_reference_class() -> None:
    model = FirstOrder(np.array([[1.0, 3.0, 2.0]]), np.eye(3)[None])
    np.testing.assert_array_equal(model.margins(), [[2, 0, 1]])
    np.testing.assert_array_equal(model.margins([0]), [[0, -2, -1]])
    assert model.predicted.tolist() == [1] and len(model) == 1 and model.classes == 3


def test_one_image_needs_no_batch_dimension() -> None:
    model = FirstOrder(np.array([1.0, 2.0]), np.eye(2))
    assert model.logits.shape == (1, 2) and model.gram.shape == (1, 2, 2)


def test_the_first_of_tied_classes_is_predicted() -> None:
    assert FirstOrder(np.zeros((2, 4)), np.zeros((2, 4, 4))).predicted.tolist() == [0, 0]


@pytest.mark.parametrize("parameters", [30, 3])  # 3: J Jᵀ of five classes is singular
def test_samples_have_the_covariance(parameters: int) -> None:
    model, draws = random_model(2, 5, parameters=parameters), 20_000
    noise = model.sample(draws, np.random.default_rng(0))
    assert noise.shape == (draws, 2, 5)
    found = np.einsum("dnk,dnl->nkl", noise, noise) / draws
    variances = np.diagonal(model.gram, axis1=1, axis2=2)
    deviation = np.sqrt((variances[:, :, None] * variances[:, None, :] + model.gram**2) / draws)
    assert (np.abs(found - model.gram) < 4.5 * deviation).all()
    crossed = np.einsum("dk,dl->kl", noise[:, 0], noise[:, 1]) / draws  # images move independently
    assert (np.abs(crossed) < 4.5 * np.sqrt(variances[0][:, None] * variances[1] / draws)).all()


@pytest.mark.parametrize(
    ("logits", "gram", "message"),
    [
        (np.zeros((0, 3)), np.zeros((0, 3, 3)), "at least one of each"),
        (np.zeros((2, 0)), np.zeros((2, 0, 0)), "at least one of each"),
        (np.zeros((2, 3)), np.zeros((2, 3)), "expected .images, classes. and"),
        (np.zeros((2, 3)), np.zeros((1, 3, 3)), "expected .images, classes. and"),
        (np.array([[np.nan, 0]]), np.eye(2)[None], "the logits holds NaN"),
        (np.zeros((1, 2)), np.full((1, 2, 2), np.inf), "J Jᵀ holds NaN or infinity"),
        (np.zeros((1, 2)), np.array([[[1.0, 0.5], [0.0, 1.0]]]), "not symmetric"),
        (np.zeros((1, 2)), np.array([[[1.0, 2.0], [2.0, 1.0]]]), "negative eigenvalues"),
    ],
)
def test_what_is_no_jacobian_gram_is_refused(logits: np.ndarray, gram: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=message):
        FirstOrder(logits, gram)


@pytest.mark.parametrize("reference", [[0], [0, 5], [0, -1], [0.0, 1.0], [[0, 1]]])
def test_reference_classes_must_be_classes(reference: list) -> None:
    with pytest.raises(InputError, match="expected 2 whole numbers from 0 to 4"):
        random_model(2).margins(reference)


@pytest.mark.parametrize("std", [-1e-3, np.nan, np.inf, [0.1, 0.2], "much", 1j])
def test_noise_levels_are_finite_and_not_negative(std: object) -> None:
    with pytest.raises(InputError, match="std|the standard deviation"):
        noise_level(std)  # type: ignore[arg-type]
    assert noise_level(0) == 0
