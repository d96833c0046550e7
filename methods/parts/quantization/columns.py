"""Fixing a weight column by column, the error of each fed on to those not yet fixed, as
GPTQ, RSQ and SparseGPT do it.

All matrices are transposed: W, Q (n, m) hold a layer's columns as rows. With H = R R^T
the second moment of the inputs, R upper triangular, the papers' upper Cholesky factor
of H^-1 is U = R^-1. Their updates w_k -= e_j U_jk, e_j = (w_j - q_j) / U_jj, for k > j,
sum up to w_k = W_k + sum_{j<k} R_jk / R_kk (W_j - Q_j) (Chee, Cai, Kuleshov, De Sa,
arXiv 2307.13304, theorem 6): the same numbers without the inverse. For a block G of
columns, once all before it are fixed, w_G = W_G + (R_<G R_GG^-1)^T (W_< - Q_<); from
there on it is a problem of its own, with R_GG.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

BLOCK = 128


def upper_factor(H: Tensor, percdamp: float) -> Tensor:
    """Return the upper triangular R (n, n), float32, with R R^T = H + percdamp
    mean(diag H) I; H is factorised in its own precision.
    """
    damped = H.flip(0, 1)
    damped.diagonal().add_(percdamp * H.diagonal().mean())
    R: Tensor = torch.linalg.cholesky(damped).float().flip(0, 1)
    return R


def by_blocks(W: Tensor, R: Tensor, step: int, settle: Callable[[slice, Tensor], Tensor]) -> Tensor:
    """Return Q: settle(G, w_G) gives its rows G, `step` at a time, from what errors
    before have made of those of W.
    """
    Q, D = torch.empty_like(W), torch.empty_like(W)
    for start in range(0, len(W), step):
        G = slice(start, min(start + step, len(W)))
        A = torch.linalg.solve_triangular(R[G, G], R[:start, G], upper=True, left=False)
        Q[G] = settle(G, torch.addmm(W[G], A.T, D[:start]))
        D[G] = W[G] - Q[G]
    return Q


def by_columns(W: Tensor, R: Tensor, settle: Callable[[int, Tensor], Tensor]) -> Tensor:
    """Return Q: settle(k, w_k) gives its row k from what errors before have made of
    that of W; as `by_blocks` with step 1.
    """
    Q: list[Tensor] = []
    D, A = torch.empty_like(W), (R / R.diagonal()).T.contiguous()
    for k, (w, d, a) in enumerate(zip(W, D, A, strict=True)):
        Q.append(settle(k, torch.addmv(w, D[:k].T, a[:k])))
        torch.sub(w, Q[k], out=d)
    return torch.stack(Q)
