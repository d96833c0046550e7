"""Algorithm 1 of GPTQ (Frantar et al., arXiv 2210.17323), shared by RSQ and SparseGPT:
a weight is fixed column by column, and the error of each spread over those after it.

    U <- Cholesky(H^-1)^T                                  `upper_factor`
    for i = 0, B, 2 B, ...                                 `by_blocks`
        for j = i, ..., i + B - 1                          `by_columns`
            Q_j <- quant(W_j)
            E_j <- (W_j - Q_j) / U_jj
            W_k <- W_k - E_j U_jk          for all k of the block from j on
        W_k <- W_k - sum_j E_j U_jk        for all k after the block, j of the block

Here without the inverse: of H = R R^T, R upper triangular, U is R^-1, and what column k
gets from all before it is, by D_j = W_j - Q_j with W_j as it was at first,

    - sum_{j<k} E_j U_jk = sum_{j<k} D_j R_jk / R_kk

(Chee, Cai, Kuleshov, De Sa, arXiv 2307.13304, theorem 6), one product. So an error is
not spread over all columns left: those get theirs, from all before, when they are next.
A block G gets (R_<G R_GG^-1)^T D_<, and is then a problem of its own, with R_GG.

All matrices are transposed: W, Q, D (n, m) hold a layer's columns as rows.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

BLOCK = 128  # B


def upper_factor(H: Tensor, percdamp: float) -> Tensor:
    """Return R = U^-1, upper triangular (n, n), float32: R R^T = H + percdamp mean(diag
    H) I; H is factorised in its own precision.
    """
    damped = H.flip(0, 1)
    damped.diagonal().add_(percdamp * H.diagonal().mean())
    R: Tensor = torch.linalg.cholesky(damped).float().flip(0, 1)
    return R


def by_blocks(W: Tensor, R: Tensor, B: int, settle: Callable[[slice, Tensor], Tensor]) -> Tensor:
    """Return Q: settle(G, W_G) gives a block G of its rows, `B` or what is left, from
    those of W as the errors before have made them.
    """
    Q, D = torch.empty_like(W), torch.empty_like(W)
    W_G = W[:B].clone(memory_format=torch.contiguous_format)
    for i in range(0, len(W), B):
        G = slice(i, min(i + B, len(W)))
        Q[G] = settle(G, W_G)  # quantised block
        D[G] = W[G] - Q[G]  # its errors
        if G.stop < len(W):
            W_G = spread(D[: G.stop], W, R, slice(G.stop, min(G.stop + B, len(W))))
    return Q


def spread(D: Tensor, W: Tensor, R: Tensor, G: slice) -> Tensor:
    """Return W_G + (R_<G R_GG^-1)^T D: the rows G of W with the errors D of all rows
    before them.
    """
    A = torch.linalg.solve_triangular(R[G, G], R[: G.start, G], upper=True, left=False)
    return torch.addmm(W[G], A.T, D)


def by_columns(W: Tensor, R: Tensor, quant: Callable[[int, Tensor], Tensor]) -> Tensor:
    """Return Q: quant(j, W_j) gives its row j from that of W as the errors before have
    made it; as `by_blocks` with B = 1.
    """
    Q: list[Tensor] = []
    D = torch.empty_like(W)
    A = (R / R.diagonal()).T.contiguous()  # A_kj = R_jk / R_kk
    W_j = W[0]
    for j in range(len(W)):
        Q.append(quant(j, W_j))  # quantised column
        torch.sub(W[j], Q[j], out=D[j])  # its error
        if (k := j + 1) < len(W):
            W_j = torch.addmv(W[k], D[:k].T, A[k, :k])  # W_k + sum_{j<k} D_j A_kj
    return torch.stack(Q)
