import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from torch.nn.functional import cross_entropy

from harness.point import counter, store
from methods.q_exit import Exits, Leaving, Pondering, QExit, geometric, log_pmf, ponder, tokens

LAMBDAS = torch.tensor([0.2, 0.3, 0.5])


@pytest.fixture
def make_exits(make_model):
    """Build a ViT of four blocks and its exits, whose class tokens and head of lambda
    tell images apart.
    """

    def make(first=1):
        vit = make_model("vit")
        vit.blocks = vit.blocks[:4]
        vit.patch_embed.proj.weight.data *= 3
        for block in vit.blocks:
            block.attn.proj.weight.data *= 30
        exits = Exits(vit, first, 0.5, torch.Generator().manual_seed(0))
        exits.head[-1].weight.data.normal_(generator=torch.Generator().manual_seed(5))
        return vit, exits.eval()

    return make


def at_exit(vit, exits, images, number):
    """Return the logits of exit `number`, counted from 1, whatever the head says."""
    x = tokens(vit, images, exits.first - 1 + number)
    return vit.head([*exits.norms, vit.norm][number - 1](x[:, 0]))


def costs_alone(model, images):
    """Return what each image costs in a batch of its own."""
    return [counter.count(model, image[None]).macs for image in images]


def test_the_worked_example(make_exits, make_data, monkeypatch):
    p = log_pmf(LAMBDAS.logit()[None]).exp()
    torch.testing.assert_close(p, torch.tensor([[0.2, 0.24, 0.28, 0.28]]))
    (vit, exits), images = make_exits(), make_data("vit").calibration[:4]
    for q, number in [(0.1, 1), (0.3, 2), (0.5, 3), (0.7, 3), (0.75, 4)]:
        given = iter(LAMBDAS.logit())
        monkeypatch.setattr(
            exits, "logit", lambda here, before, given=given: next(given).expand(len(here))
        )
        with torch.no_grad():
            torch.testing.assert_close(
                Leaving(vit, exits, q)(images), at_exit(vit, exits, images, number)
            )


def test_the_prior_is_geometric_with_the_rest_on_the_last_exit():
    prior = geometric(0.1, 12)
    assert prior[[0, 1, 10, 11]].tolist() == pytest.approx([0.1, 0.09, 0.0349, 0.3138], abs=5e-5)
    assert prior.sum().item() == pytest.approx(1)
    assert (prior * torch.arange(1, 13)).sum().item() == pytest.approx(7.2, abs=0.05)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_of_what_ponder_returns_differentiates_the_papers_loss(smoothing):
    generator = torch.Generator().manual_seed(0)
    z, logits = (
        3 * torch.randn(7, 4, 5, generator=generator),
        2 * torch.randn(7, 3, generator=generator),
    )
    labels, prior = torch.randint(5, (7,), generator=generator), geometric(0.3, 4)
    leaves = [tensor.double().requires_grad_() for tensor in (z, logits)]
    cross_entropy(
        ponder(leaves[0], log_pmf(leaves[1]), prior.double(), 0.5),
        labels,
        label_smoothing=smoothing,
    ).backward()
    wanted = [tensor.double().requires_grad_() for tensor in (z, logits)]
    lam = torch.cat([wanted[1].sigmoid(), torch.ones(7, 1)], 1)
    p = torch.stack([lam[:, i] * (1 - lam[:, :i]).prod(1) for i in range(4)], 1)
    losses = torch.stack(
        [
            cross_entropy(wanted[0][:, i], labels, reduction="none", label_smoothing=smoothing)
            for i in range(4)
        ],
        1,
    )
    ((p * losses).sum(1).mean() + 0.5 * (prior * (prior.log() - p.log())).sum(1).mean()).backward()
    for found, expected in zip(leaves, wanted, strict=True):
        torch.testing.assert_close(found.grad, expected.grad)


def test_an_image_is_taught_to_leave_where_it_is_right_and_to_stay_where_it_is_not():
    labels, right = torch.tensor([0, 1]), torch.tensor([[4.0, 0.0], [0.0, 4.0]])
    # the first exit says 0 to both images
    z = torch.stack([torch.tensor([[4.0, 0.0], [4.0, 0.0]]), right], 1)
    logits = torch.zeros(2, 1, requires_grad=True)
    cross_entropy(ponder(z, log_pmf(logits), geometric(0.5, 2), 0.5), labels).backward()
    assert logits.grad[0].abs() < 1e-6 and logits.grad[1] > 0.4


def test_no_image_leaves_below_the_last_exit_at_q_near_one_and_all_leave_at_the_first_at_zero(
    make_exits, make_data
):
    (vit, exits), images = make_exits(), make_data("vit").calibration[:8]
    with torch.no_grad():
        torch.testing.assert_close(Leaving(vit, exits, 1 - 1e-7)(images), vit(images))
        torch.testing.assert_close(Leaving(vit, exits, 0.0)(images), at_exit(vit, exits, images, 1))


def test_what_an_image_gets_does_not_depend_on_the_others_and_is_what_its_exit_gives(
    make_exits, make_data
):
    (vit, exits), images = make_exits(), make_data("vit").calibration[:32]
    model = Leaving(vit, exits, 0.6)
    costs = costs_alone(model, images)
    assert len(set(costs)) == 4
    left = torch.tensor([sorted(set(costs)).index(cost) for cost in costs])
    with torch.no_grad():
        alone = torch.cat([model(image[None]) for image in images])
        torch.testing.assert_close(model(images), alone, rtol=1e-5, atol=1e-5)
        of_exits = torch.stack([at_exit(vit, exits, images, number) for number in (1, 2, 3, 4)], 1)
        torch.testing.assert_close(alone, of_exits[torch.arange(32), left], rtol=1e-5, atol=1e-5)


def test_images_leave_where_the_distribution_that_was_trained_says(
    make_exits, make_data, monkeypatch
):
    (vit, exits), images, seen = make_exits(), make_data("vit").calibration[:32], []
    monkeypatch.setattr(
        "methods.q_exit.ponder", lambda z, log_p, prior, beta: seen.append(log_p) or z[:, -1]
    )
    with torch.no_grad():
        torch.testing.assert_close(Pondering(vit, exits, 0.5, 0.5)(images), vit(images))
    costs = costs_alone(Leaving(vit, exits, 0.6), images)
    left = [sorted(set(costs)).index(cost) for cost in costs]
    assert left == (seen[0].exp().cumsum(1)[:, :-1] <= 0.6).sum(1).tolist()


def test_an_image_that_leaves_early_costs_less_than_dense_and_one_that_stays_the_heads_more(
    make_exits, make_data
):
    (vit, exits), images = make_exits(), make_data("vit").calibration[:32]
    model = Leaving(vit, exits, 0.6)
    costs, dense = costs_alone(model, images), counter.count(vit, images[:1]).macs
    head, block = 2 * 48 * 48 + 2 * 48 * 48 + 48, 12 * 17 * 48**2 + 2 * 17**2 * 48
    assert sorted(set(costs)) == [
        dense - 3 * block + head,
        dense - 2 * block + 2 * head,
        dense - block + 3 * head,
        dense + 3 * head,
    ]
    both = torch.stack([images[costs.index(min(costs))], images[costs.index(max(costs))]])
    assert counter.count(model, both).macs == max(costs)  # a batch waits for its last image


def test_the_artefact_branches_and_equals_the_model_alone_and_in_a_batch(
    make_exits, make_data, tmp_path
):
    (vit, exits), images = make_exits(first=2), make_data("vit").calibration[:16]
    model = Leaving(vit, exits, 0.6).eval()
    with torch.no_grad():
        expected = model(images)
    store.write(tmp_path, store.export(model, images[:2]), {})
    artefact = store.read(tmp_path)
    assert artefact.branches
    with torch.no_grad():
        torch.testing.assert_close(artefact.module(images), expected, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(
            torch.cat([artefact.module(image[None]) for image in images]),
            expected,
            rtol=1e-5,
            atol=1e-5,
        )
    assert costs_alone(artefact.module, images) == costs_alone(model, images)
    assert len(set(costs_alone(model, images))) == 3


def test_halting_starts_at_the_prior_and_training_reaches_every_part(make_model, make_data):
    vit, split = make_model("vit"), make_data("vit").train
    exits = Exits(vit, 2, 0.2, torch.Generator().manual_seed(0))
    assert len(exits.e) == 4
    h = torch.randn(3, 48, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(exits.logit(h, h).sigmoid(), torch.full((3,), 0.2))
    exits.head[-1].weight.data.fill_(0.1)
    model = Pondering(vit, exits, 0.2, 0.5)
    cross_entropy(model(split.images[:32]), split.labels[:32]).backward()
    assert all(
        parameter.grad is not None and parameter.grad.abs().sum() > 0
        for parameter in model.parameters()
    )


def test_full_depth_without_training_is_dense_itself_and_draws_no_images(make_model, make_data):
    model, data = make_model("vit"), make_data("vit")
    assert QExit(q=1.0, share=0.0).compress(model, data) is model
    assert data.images_seen == 0


def test_models_without_exits_are_skipped_and_settings_are_checked(make_model):
    assert QExit().skip(make_model("vit")) is None
    assert "class token" in QExit().skip(make_model("mixer"))
    assert "no block before the last" in QExit(first=6).skip(make_model("vit"))
    for wrong in (
        {"q": 1.5},
        {"lambda_p": 1.0},
        {"lambda_p": 0.0},
        {"beta": -1},
        {"first": 0},
        {"share": 2},
        {"macs": 0.5},
    ):
        with pytest.raises(ValidationError):
            TypeAdapter(QExit).validate_python(wrong)
