"""The recursion without inverses against the one that solves for the columns left after
each.
"""

import pytest
import torch

from methods.parts.quantization.columns import by_blocks, by_columns, upper_factor


def moment(columns, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(3 * columns, columns, generator=generator).relu() @ (
        torch.eye(columns) + 0.3 * torch.randn(columns, columns, generator=generator)
    )
    return (x.T @ x).double() / len(x)


def by_explicit_inverses(W, H, settle):
    """Settle column after column; each time solve for the best change of the columns
    left, and shrink H's inverse by the column that is done.
    """
    W, inverse, done = W.double().clone(), torch.linalg.inv(H), []
    for j in range(len(W)):
        done.append(settle(j, W[j]))
        error = (W[j] - done[j]) / inverse[0, 0]
        W[j:] -= error * inverse[0][:, None]
        inverse = inverse[1:, 1:] - inverse[1:, :1] @ inverse[:1, 1:] / inverse[0, 0]
    return torch.stack(done)


def test_the_upper_factor_squares_to_the_damped_moment_and_inverts_the_papers():
    H = moment(30)
    damped = H + 0.1 * H.diagonal().mean() * torch.eye(30)
    R = upper_factor(H, 0.1).double()
    assert torch.equal(R, R.triu())
    torch.testing.assert_close(R @ R.T, damped, rtol=1e-5, atol=1e-5)
    U = torch.linalg.cholesky(torch.linalg.inv(damped), upper=True)
    torch.testing.assert_close(R @ U, torch.eye(30, dtype=torch.float64), rtol=0, atol=1e-5)


@pytest.mark.parametrize("step", [1, 7, 24, 50, 64])
def test_blocks_of_any_size_give_what_explicit_inverses_give(step):
    W, H = torch.randn(50, 8, generator=torch.Generator().manual_seed(1)), moment(50)
    expected = by_explicit_inverses(W, H, lambda _j, w: (4 * w).round() / 4)
    R = upper_factor(H, 0)
    found = by_blocks(
        W, R, step, lambda G, w: by_columns(w, R[G, G], lambda _k, w_k: (4 * w_k).round() / 4)
    )
    assert torch.equal(found, expected.float())


def test_the_weights_a_block_is_shown_are_those_the_updates_have_made():
    W, H = torch.randn(12, 3, generator=torch.Generator().manual_seed(2)), moment(12)
    shown = []
    by_blocks(W, upper_factor(H, 0), 6, lambda _G, w: shown.append(w) or torch.zeros_like(w))
    # of all changes of the last six, the one that makes up best for no first six
    best = torch.linalg.solve(H[6:, 6:], H[6:, :6]) @ W[:6].double()
    torch.testing.assert_close(shown[1], W[6:] + best.float(), rtol=1e-4, atol=1e-4)


def test_what_is_kept_changes_nothing():
    W, R = torch.randn(20, 5), upper_factor(moment(20), 0.01)
    assert torch.equal(by_blocks(W, R, 8, lambda _G, w: w), W)
    assert torch.equal(by_columns(W, R, lambda _k, w: w), W)
