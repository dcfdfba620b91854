"""First-order response of logits to noise in all parameters, Eq. (10), in NumPy alone.

Independent noise of variance s² in every parameter moves the logits z of an image by J Δθ ~ N(0, s² J Jᵀ). To first
order, a test on the logits therefore depends on z and J Jᵀ only.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rmtllmf_lib.arrays import Real, real_array, real_number, whole_number
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.reprs import short_repr
from rmtllmf_lib.validated import validated_call, validated_init

Classes = NDArray[np.int64]


@validated_init
@dataclass(frozen=True, eq=False)
class FirstOrder:
    """Undisturbed logits of n images and the Gram matrices of their Jacobians; from `linearise.first_order`.

    Attributes
    ----------
    logits : (n, C) float64
        z_u; one image may be given as (C,).
    gram : (n, C, C) float64
        J Jᵀ: logits per unit of parameter, squared.

    Raises
    ------
    InputError
        if shapes do not match, there is no image or no class, a number is not finite, or a matrix is not symmetric
        positive semidefinite.
    """

    logits: Real
    gram: Real

    __repr__ = short_repr

    def __post_init__(self) -> None:
        logits, gram = real_array(self.logits, "the logits"), real_array(self.gram, "J Jᵀ")
        if logits.ndim == 1:
            logits, gram = logits[None], gram[None] if gram.ndim == 2 else gram
        if logits.ndim != 2 or 0 in logits.shape or gram.shape != (*logits.shape, logits.shape[1]):
            raise InputError(
                f"the logits have shape {logits.shape} and J Jᵀ {gram.shape}: expected (images, classes) and "
                "(images, classes, classes), at least one of each"
            )
        largest = np.abs(gram).max(axis=(1, 2), initial=0.0)[:, None]
        if (np.abs(gram - gram.swapaxes(1, 2)) > 1e-4 * largest[..., None]).any():
            raise InputError("J Jᵀ is not symmetric: expected inner products of gradients, as `gram` gives them")
        gram = (gram + gram.swapaxes(1, 2)) / 2
        if (np.linalg.eigvalsh(gram) < -1e-4 * largest).any():
            raise InputError(
                "J Jᵀ has negative eigenvalues: expected inner products of gradients, as `gram` gives them"
            )
        object.__setattr__(self, "logits", logits)
        object.__setattr__(self, "gram", gram)

    def __len__(self) -> int:
        return len(self.logits)

    @property
    def classes(self) -> int:
        """Number of classes C."""
        return self.logits.shape[1]

    @cached_property
    def predicted(self) -> Classes:
        """Predicted class of each image (n,) without noise; the first one in a tie."""
        return self.logits.argmax(1)

    @cached_property
    def row_norms(self) -> Real:
        """‖J_k‖ (n, C)."""
        return np.sqrt(np.maximum(np.diagonal(self.gram, axis1=1, axis2=2), 0.0))

    def difference_gram(self, reference: ArrayLike | None = None) -> Real:
        """Inner products (n, C, C) of J_k − J_c and J_l − J_c, c being the image's class in `reference` (n,)."""
        own = self.classes_or_predicted(reference)
        image = np.arange(len(self))
        crossed = self.gram[image, own]  # (n, C): J_c · J_k
        return self.gram - crossed[:, :, None] - crossed[:, None, :] + self.gram[image, own, own][:, None, None]

    def difference_norms(self, reference: ArrayLike | None = None) -> Real:
        """‖J_c − J_k‖ (n, C), c being the image's class in `reference` (n,), by default the predicted one."""
        return np.sqrt(np.maximum(np.diagonal(self.difference_gram(reference), axis1=1, axis2=2), 0.0))

    def margins(self, reference: ArrayLike | None = None) -> Real:
        """m_k = z_c − z_k (n, C); 0 for k = c."""
        own = self.classes_or_predicted(reference)
        return np.take_along_axis(self.logits, own[:, None], axis=1) - self.logits

    def classes_or_predicted(self, reference: ArrayLike | None) -> Classes:
        """The reference classes (n,) if given, checked; else the classes predicted without noise."""
        if reference is None:
            return self.predicted
        own = np.asarray(reference)
        if own.shape != (len(self),) or own.dtype.kind not in "iu" or own.min() < 0 or own.max() >= self.classes:
            raise InputError(
                f"the reference classes have shape {own.shape} and dtype {own.dtype}: expected {len(self)} whole "
                f"numbers from 0 to {self.classes - 1}, one for each image"
            )
        return own.astype(np.int64)

    @cached_property
    def _root(self) -> Real:
        """Symmetric square root of J Jᵀ (n, C, C), which also exists for singular matrices."""
        values, vectors = np.linalg.eigh(self.gram)
        return vectors * np.sqrt(np.maximum(values, 0.0))[:, None, :] @ vectors.swapaxes(1, 2)

    @validated_call
    def sample(self, draws: int, rng: np.random.Generator) -> Real:
        """First-order changes of the logits (draws, n, C) for parameter noise of variance 1, from N(0, J Jᵀ).

        Images are independent here, unlike in one noisy model: the law of each image is exact, and so are expected
        counts over images, but not their variance.
        """
        normal = rng.standard_normal((whole_number(draws, "draws"), *self.logits.shape))
        return np.einsum("dnk,nkl->dnl", normal, self._root)


@validated_call
def noise_level(std: float) -> float:
    """Validated standard deviation s ≥ 0 of the noise of each parameter."""
    return real_number(std, "the standard deviation of the noise", minimum=0)
