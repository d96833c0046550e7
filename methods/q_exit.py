"""Q-exit: an image leaves a ViT after the first block by which the probability of
having halted, as a small head learns it, has passed q.

Balagansky, Gavrilov, "PALBERT: Teaching ALBERT to Ponder", NeurIPS 2022, arXiv
2204.03276.

After block i the class token gives a state h_i. One classifier for all exits gives
logits z_i from it, and one head for all exits gives

    lambda_i = sigmoid(head(h_i + e_i, h_{i-1} + e_{i-1}))

with a learned embedding e_i of the layer, and zeros in the place of what comes before
the first exit. An image halts at exit i with probability

    p_i = lambda_i prod_{j<i} (1 - lambda_j)

Training runs all blocks. With means over images, its loss is

    sum_i p_i CE(z_i) + beta KL(prior || p)

The prior is the geometric distribution of parameter lambda_p, with the rest on the last
exit.

Afterwards an image takes the logits of the first exit with p_1 + ... + p_i > q, or else
of the last. Nothing is drawn, and what an image gets does not depend on its batch.

The exported program branches (torch.cond) after every exit but the last, on whether all
images of the batch have left. Alone, an image pays for its own blocks; a batch runs
until its last image has left.

Arguments:
    q: probability of having halted above which an image leaves; 0 lets all leave at the
        first exit. At 1 no image leaves early, so the fine-tuned model is returned
        without exits.
    lambda_p: parameter of the prior, the probability to halt at an exit that is
        reached; the larger, the earlier images are taught to halt
    beta: weight of the KL to the prior in the loss; 0 leaves halting to cross-entropy
        alone, a large one holds all images to the prior, so that nearly all leave at
        the same exit
    first: number of the block, counted from 1, that the first exit stands behind
    share: share of the track's fine-tuning epochs, for all weights alike; 0 trains
        nothing

Assumed:
    - ViT blocks share no weights as ALBERT's do. So each exit has a LayerNorm of its
      own, a copy of the model's at first, and h_i = LN_i(class token) has no pooler.
    - The hidden layers of the head (three, tanh) are C wide, C being the width of the
      tokens. Theirs are 2 C wide.
    - e starts at 0, and the head's last layer starts such that lambda is lambda_p, so
      that p starts at the prior.
    - The recipe is the track's fine-tuning, with its label smoothing in every CE.
    - There is no dropout on the heads.
    - Exits stand behind block `first` and every later one.
    - Deviation: lambda of the last exit is 1. Theirs leaves the rest of p unassigned.
    - Deviation: log p comes from log-sigmoids, so that nothing underflows, and p stays
      as it is. Theirs, with L layers, becomes eps / L once the sum has passed 1 - eps.

Checked against:
    - github.com/tinkoff-ai/palbert at 52a79af, its palbert_fast.py and loss.py, with
      stand-ins for transformers' ALBERT layers, eps off and lambda of the last layer 1,
      for 20 random models of 6 layers: p, prior and loss within 2e-7, gradients within
      3e-6 of the largest.
    - The same code on 640 inputs: the layer that each leaves at, at five q, is equal;
      logits, ours in a batch of 32 and theirs alone, are within 5e-7.
    - In the tests: a worked example.
    - In the tests: the prior of 12 layers.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace
from math import log
from typing import Annotated, Any

import torch
from pydantic import Field
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn.functional import kl_div, logsigmoid, pad

from methods import Data, Method
from methods.parts.training.losses import with_loss
from methods.parts.training.train import train

# tokens x (B, N, C), h + e of the last exit (B, C), probability (B,) of not having
# halted, h (B, C) of each image's own exit so far
State = tuple[Tensor, ...]


def log_pmf(logits: Tensor) -> Tensor:
    """Return log p (B, L), p_i = lambda_i prod_{j<i} (1 - lambda_j), for the logits (B,
    L - 1) of lambda; lambda_L = 1.
    """
    return pad(logsigmoid(logits), (0, 1)) + pad(logsigmoid(-logits).cumsum(1), (1, 0))


def geometric(lambda_p: float, L: int) -> Tensor:
    """Return the prior (L,): lambda_p (1 - lambda_p)^(i - 1), and what is left on the
    last.
    """
    left = (1 - lambda_p) ** torch.arange(L)
    return torch.cat([lambda_p * left[:-1], left[-1:]])


def ponder(z: Tensor, log_p: Tensor, prior: Tensor, beta: float) -> Tensor:
    """Return logits u (B, K) whose cross-entropy with any targets differentiates sum_i
    p_i CE(z_i) + beta KL(prior || p), for z (B, L, K).

    Cross-entropy is linear in log-softmaxes: with u = sum_i p_i log softmax(z_i), it is
    that sum + log sum exp u, which is subtracted again.
    """
    u = (log_p.exp()[..., None] * z.log_softmax(-1)).sum(1)
    return with_loss(
        u,
        beta * kl_div(log_p, prior.expand_as(log_p), reduction="batchmean") - u.logsumexp(1).mean(),
    )


class Exits(nn.Module):
    """What stands after the blocks of a ViT from number `first` on: LN_i and e_i for
    all but the last, and the head of lambda.
    """

    def __init__(self, vit: Any, first: int, lambda_p: float, generator: torch.Generator) -> None:
        super().__init__()
        C, count, device = vit.embed_dim, len(vit.blocks) - first, next(vit.parameters()).device
        self.first = first
        self.norms = nn.ModuleList(deepcopy(vit.norm) for _ in range(count))
        self.e = nn.Parameter(torch.zeros(count, C, device=device))
        hidden, last = [nn.Linear(2 * C, C), nn.Linear(C, C), nn.Linear(C, C)], nn.Linear(C, 1)
        for layer in hidden:
            nn.init.xavier_uniform_(layer.weight, generator=generator)
            nn.init.zeros_(layer.bias)
        nn.init.zeros_(last.weight)
        nn.init.constant_(last.bias, log(lambda_p / (1 - lambda_p)))
        self.head = nn.Sequential(
            *(part for layer in hidden for part in (layer, nn.Tanh())), last
        ).to(device)

    def logit(self, here: Tensor, before: Tensor) -> Tensor:
        """Return the logit of lambda_i (B,) for h_i + e_i and h_{i-1} + e_{i-1}, both
        (B, C).
        """
        result: Tensor = self.head(torch.cat([here, before], 1))
        return result[:, 0]


def tokens(vit: Any, images: Tensor, blocks: int) -> Tensor:
    """Return the tokens (B, N, C) after the first `blocks` of `vit`."""
    x: Tensor = vit.norm_pre(vit.patch_drop(vit._pos_embed(vit.patch_embed(images))))
    for block in vit.blocks[:blocks]:
        x = block(x)
    return x


class Pondering(nn.Module):
    """A ViT that runs all its blocks and returns logits with the loss of all its
    exits.
    """

    def __init__(self, vit: Any, exits: Exits, lambda_p: float, beta: float) -> None:
        super().__init__()
        self.vit, self.exits, self.beta = vit, exits, beta
        self.prior = nn.Buffer(geometric(lambda_p, len(exits.e) + 1).to(exits.e.device))

    def forward(self, images: Tensor) -> Tensor:
        vit, exits = self.vit, self.exits
        x = tokens(vit, images, exits.first - 1)
        h: list[Tensor] = []
        for block, norm in zip(
            vit.blocks[exits.first - 1 :], [*exits.norms, vit.norm], strict=True
        ):
            x = block(x)
            h.append(norm(x[:, 0]))
        here = [h_i + e_i for h_i, e_i in zip(h, exits.e, strict=False)]
        logits = [
            exits.logit(*pair)
            for pair in zip(here, [torch.zeros_like(here[0]), *here], strict=False)
        ]
        return ponder(
            vit.head(torch.stack(h, 1)).float(),
            log_pmf(torch.stack(logits, 1).float()),
            self.prior,
            self.beta,
        )


class Leaving(nn.Module):
    """A ViT whose images leave at their first exit with a CDF above q."""

    def __init__(self, vit: Any, exits: Exits, q: float) -> None:
        super().__init__()
        self.vit, self.exits, self.q = vit, exits, q

    def forward(self, images: Tensor) -> Tensor:
        x = tokens(self.vit, images, self.exits.first - 1)
        none = torch.zeros_like(x[:, 0])
        state = self.step(0)(x, none, torch.ones_like(none[:, 0]), none)
        for i in range(1, len(self.exits.e) + 1):
            state = unless(self.gone(state[2]).all(), self.step(i), state)
        logits: Tensor = self.vit.head(state[3])
        return logits

    def gone(self, stay: Tensor) -> Tensor:
        """Return which images have left (B,), by the probability of not having
        halted.
        """
        return 1 - stay > self.q

    def step(self, i: int) -> Callable[..., State]:
        """Return the function that takes the state from exit i - 1 to exit i."""
        block, exits = self.vit.blocks[self.exits.first - 1 + i], self.exits

        def run(x: Tensor, before: Tensor, stay: Tensor, kept: Tensor) -> State:
            x = block(x)
            if i == len(exits.e):
                return (
                    x,
                    before.clone(),
                    stay.clone(),
                    torch.where(self.gone(stay)[:, None], kept, self.vit.norm(x[:, 0])),
                )
            h = exits.norms[i](x[:, 0])
            here = h + exits.e[i]
            return (
                x,
                here,
                stay * torch.sigmoid(-exits.logit(here, before)),
                torch.where(self.gone(stay)[:, None], kept, h),
            )

        return run


def unless(done: Tensor, step: Callable[..., State], state: State) -> State:
    """Return step(*state), or the state as it is if `done`; an exported program decides
    when it runs.
    """
    if torch.compiler.is_exporting():
        result: State = torch.cond(
            done, lambda *parts: tuple(part.clone() for part in parts), step, state
        )
        return result
    return state if done else step(*state)


@dataclass(frozen=True)
class QExit(Method):
    """Fine-tune with exits under the prior `lambda_p`, and let each image leave once
    its probability of having halted passes `q`.
    """

    q: Annotated[float, Field(ge=0, le=1)] = 0.5
    lambda_p: Annotated[float, Field(gt=0, lt=1)] = 0.1
    beta: Annotated[float, Field(ge=0)] = 0.5
    first: Annotated[int, Field(ge=1)] = 1
    share: Annotated[float, Field(ge=0, le=1)] = 1.0

    family = "exits"
    paper = "Balagansky and Gavrilov 2022, arXiv 2204.03276"
    needs = "fine-tune"
    realisation = "dynamic"
    stochastic = True
    identity = {"q": 1.0, "share": 0.0}
    strongest = {"q": 0.0}

    def skip(self, model: nn.Module) -> str | None:
        if not isinstance(model, VisionTransformer):
            return "not a vision transformer: its blocks have no class token to leave with"
        if model.global_pool != "token" or not isinstance(model.fc_norm, nn.Identity):
            return "its classifier does not read the normalised class token alone"
        return (
            None
            if self.first < len(model.blocks)
            else f"no block before the last is number {self.first} or later"
        )

    def compress(self, model: nn.Module, data: Data) -> nn.Module:
        exits = Exits(model, self.first, self.lambda_p, data.generator("head of lambda"))
        schedule = replace(data.fine_tune, epochs=self.share * data.fine_tune.epochs)
        train(Pondering(model, exits, self.lambda_p, self.beta), data, schedule)
        return Leaving(model, exits, self.q).eval() if self.q < 1 else model
