"""Square-root form of the linear MMSE receiver: one QR factorisation serves every user of a drop.

With whitened noise, `A = W^H W` and `W = C^(-1/2) G`, the triangular factor R of `[I; W] = [Q1; Q2] R` yields all
results: `I + A = R^H R`, the error covariance is `Q1 Q1^H`, the filter `Q1 Q2^H C^(-1/2)`. Leading blocks of R belong
to leading sets of users, so its diagonal gives the SIC rates by telescoping determinants. Nothing is squared, so the
condition number is the root of that of `I + A`.

Where C is singular, users are split: N^H G, with N a basis of the null space of C, is free of noise. A column of N^H G
that is independent of the columns before it belongs to a user whose rate is infinite; for a dependent one, the
combination `v` of columns with `N^H G v = 0` and a one at that user replaces the unit vector: R is then the triangular
factor of `[V; W V]`. These are the exact limits of `C + t I` as t goes to 0.

References
----------
.. [1] B. Hassibi, "An efficient square-root algorithm for BLAST", ICASSP 2000.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from rmtllmf_lib.arrays import Complex, Real
from rmtllmf_lib.errors import InputError
from rmtllmf_lib.reprs import short_repr

SINGULAR = 1e-13  # relative to the largest eigenvalue of C: smaller ones count as zero
EVEN = 1e-4  # smallest ratio of the eigenvalues of G^H G at which its eigenvectors are accurate enough
FREE = 1e-7  # relative to a user's amplitude: a smaller part outside range(C) is rounding


@dataclass(frozen=True)
class Whitened:
    """The users' channels after whitening, for a batch of drops; columns in the order given.

    Attributes
    ----------
    W : (..., rx, user) complex
        `C^(-1/2) G` on range(C); dimensionless.
    whitener : (..., rx, rx) complex or None
        `C^(-1/2)`, zero on null(C); None where it was not requested.
    V : (..., user, user) complex or None
        Basis of ker(N^H G), zero in the columns of users with noise-free energy; None means the identity.
    T, U : (..., user, user), (..., rx, user) complex or None
        `N^H G T = U`, orthonormal columns for users with noise-free energy, zero ones for the others.
    N : (..., rx, rx) complex or None
        Rows are N^H, padded with zeros.
    """

    W: Complex
    whitener: Complex | None
    V: Complex | None = None
    T: Complex | None = None
    U: Complex | None = None
    N: Complex | None = None

    __repr__ = short_repr

    @property
    def free(self) -> Any:
        """Whether a user has noise-free energy outside the span of earlier columns: (..., user) bool, or False."""
        return False if self.V is None else np.einsum("...ii->...i", self.V) == 0

    def stacked(self) -> Complex:
        """`[V; W V]`, (..., user + rx, user); for singular C more rows, unit vectors for noise-free users."""
        W = self.W
        users = W.shape[-1]
        if self.V is None:
            stack = np.zeros((*W.shape[:-2], users + W.shape[-2], users), dtype=np.complex128)
            stack[..., range(users), range(users)] = 1
            stack[..., users:, :] = W
            return stack
        # a zero column would get an arbitrary direction, which later columns would lose
        return np.concatenate([self.V, W @ self.V, self.free[..., None, :] * np.eye(users)], axis=-2)


def adjoint(matrix: Any) -> Any:
    """Conjugate transpose of the last two dimensions."""
    return matrix.conj().swapaxes(-1, -2)


def thin_svd(G: Complex) -> tuple[Complex, Real, Complex]:
    """Singular value decomposition `G = U diag(s) V^H` of matrices (..., rx, user), batched.

    Where no singular value is below a hundredth of the largest, V comes from the eigenvectors of `G^H G` and s from the
    norms of the columns of `G V`, which is several times faster. Squaring costs eigenvalues digits, but a norm is a
    Rayleigh quotient, whose error is the square of the eigenvector's: s is as accurate as from the full decomposition,
    and U is orthonormal to 1e-11. Other matrices get the full decomposition.

    Returns
    -------
    U : (..., rx, r) complex, with r = min(rx, user)
    s : (..., r) float, descending
    V^H : (..., r, user) complex
    """
    if G.shape[-2] < G.shape[-1]:
        U, s, right = thin_svd(adjoint(G))
        return adjoint(right), s, adjoint(U)
    values, vectors = np.linalg.eigh(adjoint(G) @ G)
    plain = (values[..., 0] > EVEN * values[..., -1]) & (values[..., 0] > np.finfo(np.float64).tiny / EVEN)
    vectors = vectors[..., ::-1]
    U, right = G @ vectors, adjoint(vectors)
    norms: Any = np.sqrt((np.square(U.real) + np.square(U.imag)).sum(axis=-2))
    U /= np.where(norms > 0, norms, 1)[..., None, :]
    if not plain.all():
        U[~plain], norms[~plain], right[~plain] = np.linalg.svd(G[~plain], full_matrices=False)
    return U, norms, right


def whiten(C: Complex, G: Complex, *, filters: bool = False, name: str = "noise_cov") -> Whitened:
    """Whiten the users' channels `G` (..., rx, user) by the covariance `C` (..., rx, rx).

    Only the lower triangle of C is used. One C for all drops may have a leading dimension of 1.

    Raises
    ------
    InputError
        where C has a negative eigenvalue.
    """
    shared = C.shape[:-2] != G.shape[:-2]
    rx = C.shape[-1]
    diagonal = np.diagonal(C, axis1=-2, axis2=-1).real
    first = C[..., 1:, 0]  # rules out most other matrices at once
    if (
        not first.any()
        and np.count_nonzero(C) == diagonal.size
        and (diagonal > SINGULAR * diagonal.max(axis=-1, keepdims=True)).all()
    ):
        roots: Any = 1 / np.sqrt(diagonal)  # diagonal C, mostly thermal noise
        return Whitened(roots[..., None] * G, (roots[..., None] * np.eye(rx)).astype(complex) if filters else None)
    try:
        L = np.linalg.cholesky(C if filters or shared else _bordered(C, G))
    except np.linalg.LinAlgError:
        return _whiten_singular(C, G, filters, name)
    pivots = np.diagonal(L, axis1=-2, axis2=-1)[..., :rx].real.min(axis=-1) ** 2
    if (pivots <= 10 * SINGULAR * diagonal.max(axis=-1)).any():
        return _whiten_singular(C, G, filters, name)
    if filters or shared:
        whitener: Any = np.linalg.inv(L)
        return Whitened(whitener @ G, whitener)
    return Whitened(adjoint(L[..., rx:, :rx]), None)


def _bordered(C: Complex, G: Complex) -> Complex:
    """`[[C, G], [G^H, D]]`, whose Cholesky factor holds `W^H` below that of C: a batched triangular solve.

    D dominates `W^H W` and does not affect W.
    """
    rx, users = G.shape[-2:]
    K = np.zeros((*G.shape[:-2], rx + users, rx + users), dtype=np.complex128)
    K[..., :rx, :rx] = C
    np.conjugate(G.swapaxes(-1, -2), out=K[..., rx:, :rx])  # only the lower triangle is read
    K[..., range(rx, rx + users), range(rx, rx + users)] = 1e200
    return K


def _whiten_singular(C: Complex, G: Complex, filters: bool, name: str) -> Whitened:
    values, vectors = np.linalg.eigh(C)
    largest = np.abs(values).max(axis=-1, keepdims=True)
    require_semidefinite(values, name)
    zero = values <= SINGULAR * largest
    root = np.where(zero, 0, 1 / np.sqrt(np.where(zero, 1, values)))
    rows = adjoint(vectors)
    whitener, N = root[..., None] * rows, zero[..., None] * rows
    V, T, U = _split(N @ G, np.linalg.norm(G, axis=-2))
    return Whitened(whitener @ G, whitener if filters else None, V, T, U, N)


def precision(matrix: ArrayLike, double: float) -> float:
    """Relative tolerance for a matrix: `double`, or a hundred roundings if it is stored in single or half precision."""
    dtype = np.asarray(matrix).dtype
    return max(double, 100 * float(np.finfo(dtype).eps)) if dtype.kind in "fc" else double


def require_semidefinite(values: Any, name: str, tolerance: float = 1e-10) -> None:
    """`InputError` where an eigenvalue of a matrix, (..., n), is below `-tolerance` times the largest."""
    largest = np.abs(values).max(axis=-1, keepdims=True)
    if not (values >= -tolerance * largest).all():
        worst = (values / np.maximum(largest, 1e-300)).min()
        raise InputError(
            f"{name} is indefinite: it has an eigenvalue of {worst:.3g} times the largest; "
            "expected a positive semidefinite matrix"
        )


def _split(free: Complex, amplitude: Real) -> tuple[Complex, Complex, Complex]:
    """V, T and U of `Whitened` from N^H G and the norms of G's columns, by Gram-Schmidt."""
    users = free.shape[-1]
    U = np.zeros_like(free)
    T = np.zeros((*free.shape[:-2], users, users), dtype=np.complex128)
    V = np.zeros_like(T)
    for j in range(users):
        column = free[..., j, None]
        inside = adjoint(U) @ column
        again = adjoint(U) @ (column - U @ inside)  # a second pass keeps the columns orthogonal
        inside = inside + again
        rest = column - U @ inside
        combination = np.eye(users)[:, j, None] - T @ inside
        norm = np.linalg.norm(rest, axis=-2)
        fresh = norm > FREE * amplitude[..., j, None]
        scale = np.where(fresh, 1 / np.where(fresh, norm, 1), 0)
        U[..., j] = rest[..., 0] * scale
        T[..., j] = combination[..., 0] * scale
        V[..., j] = combination[..., 0] * ~fresh
    return V, T, U


def _triangle(white: Whitened) -> Any:
    """R of the QR factorisation of `white.stacked()`, up to the phases of its rows.

    Where interference leaves every user a tenth of `1 + ||w_j||^2`, squaring loses no digits, and the Cholesky factor
    of `I + W^H W` is as accurate in less than half the time.
    """
    if white.V is not None:
        return np.linalg.qr(white.stacked(), mode="r")
    A = adjoint(white.W) @ white.W
    diagonal = np.einsum("...ii->...i", A)
    diagonal += 1
    try:
        R = adjoint(np.linalg.cholesky(A))
    except np.linalg.LinAlgError:
        return np.linalg.qr(white.stacked(), mode="r")
    left = np.square(np.einsum("...ii->...i", R).real)
    poor = ~(left > 0.1 * diagonal.real).all(axis=-1)
    if poor.any():
        R[poor] = np.linalg.qr(Whitened(white.W[poor], None).stacked(), mode="r")
    return R


def log_gains(white: Whitened) -> Real:
    """`log r_jj^2` of each column, (..., user) in nats: the rate of the user against the columns before it."""
    R = _triangle(white)
    pivots = np.diagonal(R, axis1=-2, axis2=-1)
    rates = np.log(np.square(pivots.real) + np.square(pivots.imag)).clip(0)
    if white.V is not None:
        return np.where(white.free, np.inf, rates)
    energy = (np.square(white.W.real) + np.square(white.W.imag)).sum(axis=-2)
    weak = (energy < 1).any(axis=-1)
    if weak.any():
        # r_jj^2 - 1 is then more accurate than r_jj^2, so that weak users keep all their digits
        before = np.triu(np.square(R[weak].real) + np.square(R[weak].imag), 1).sum(axis=-2)
        rates[weak] = np.where(energy[weak] < 1, np.log1p((energy[weak] - before).clip(0, 1)), rates[weak])
    return rates


def factors(white: Whitened) -> tuple[Complex, Complex, Real]:
    """Q1, Q2 and the diagonal of R; the columns of users with noise-free energy are zero in Q1 and Q2."""
    Q, R = np.linalg.qr(white.stacked())
    users, rx = white.W.shape[-1], white.W.shape[-2]
    pivots = np.diagonal(R, axis1=-2, axis2=-1)
    phase = pivots / np.abs(pivots)
    # Q1 is V R^-1; computed from R, even MSEs near the square of the machine precision keep their digits
    Q1 = np.linalg.inv(R * phase.conj()[..., None])
    Q2 = Q[..., users : users + rx, :] * phase[..., None, :]
    if white.V is not None:
        Q1, Q2 = white.V @ Q1, Q2 * ~white.free[..., None, :]
        Q1 = Q1 * ~white.free[..., None, :]
    return Q1, Q2, np.abs(pivots)


def filters(white: Whitened, *, joint: bool) -> Complex:
    """Filters (..., user, rx) in the order of the columns, in units of the inverse of G's.

    Joint filters treat all users as interference; SIC filters only the columns before their own.
    """
    Q1, Q2, pivots = factors(white)
    assert white.whitener is not None
    correction = T = None
    if white.T is not None and white.U is not None and white.N is not None:
        T = white.T
        correction = (adjoint(Q1) + adjoint(Q2) @ white.W) @ T
        known = adjoint(white.U) @ white.N
    noisy = adjoint(Q2) @ white.whitener
    if joint:
        result = Q1 @ noisy
        return result if correction is None else result + (T - Q1 @ correction) @ known
    if correction is not None:
        noisy = noisy - np.tril(correction) @ known
    result = noisy / pivots[..., None]
    return result if T is None else result + np.einsum("...ii->...i", T)[..., None] * known
