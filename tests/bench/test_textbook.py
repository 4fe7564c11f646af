"""The textbook's methods are ours: same losses, same gradients."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from bench import textbook
from bench.textbook import Players
from trainers.networks import Dcgan, Mlp, Network
from trainers.objectives import CTransform, KantorovichRubinstein, Objective
from trainers.pair import Pair
from trainers.penalties import Admissibility, GradientPenalty, Penalty, WassersteinPenalty

KR = KantorovichRubinstein()
Critic = Callable[[Players, Tensor, Tensor], dict[str, float]]
METHODS: dict[str, tuple[Critic, Objective, Penalty]] = {
    "wgan_gp": (textbook.wgan_gp_critic, KR, GradientPenalty()),
    "wwgan": (textbook.wwgan_critic, KR, WassersteinPenalty()),
    **{
        f"qp_{q:g}_{p:g}": (
            lambda players, real, fake, q=q, p=p: textbook.qp_critic(players, real, fake, q=q, p=p),
            CTransform(q=q, p=p),
            Admissibility(),
        )
        for q, p in ((1.0, 1.0), (2.0, 1.0), (2.0, 2.0), (1.5, 1.0))
    },
}
NETWORKS: dict[str, tuple[Network, tuple[int, ...]]] = {
    "mlp": (Mlp(latent_size=4, generator_widths=(16,), critic_widths=(16, 16)), (1, 6, 6)),
    "dcgan": (Dcgan(latent_size=4, generator_widths=(8, 8), critic_widths=(8, 8)), (3, 8, 8)),
}


@pytest.fixture(autouse=True)
def own_random_state() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        yield


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("method", METHODS)
def test_a_critics_loss_and_gradients_are_ours_on_the_same_minibatch(method: str, network: str) -> None:
    step, objective, penalty = METHODS[method]
    parts, shape = NETWORKS[network]
    torch.manual_seed(0)
    players = textbook.make_players(parts, shape, torch.device("cpu"))
    real = torch.rand(8, *shape) * 2 - 1
    fake = players.generator(torch.randn(8, 4)).detach()
    critic = copy.deepcopy(players.critic)

    torch.manual_seed(1)
    loss = step(players, real, fake)["critic_loss"]
    torch.manual_seed(1)
    pair = Pair(objective, critic, real, fake)
    pair.score()
    ours = penalty(critic, pair) - objective.value(pair)
    ours.backward()

    assert loss == pytest.approx(ours.item(), rel=1e-5)
    gradients = [parameter.grad for parameter in players.critic.parameters()]
    scale = max(parameter.grad.abs().max() for parameter in critic.parameters())
    assert scale > 0
    for theirs, parameter in zip(gradients, critic.parameters(), strict=True):
        torch.testing.assert_close(theirs, parameter.grad, rtol=1e-4, atol=1e-5 * scale.item())


@pytest.mark.parametrize("method", ["wgan_gp", "wwgan", "qp_wgan"])
def test_a_step_moves_both_players_and_logs_finite_losses(method: str) -> None:
    parts, shape = NETWORKS["dcgan"]
    step = textbook.qp_wgan(1.5, 2.0) if method == "qp_wgan" else getattr(textbook, method)
    torch.manual_seed(0)
    players = textbook.make_players(parts, shape, torch.device("cpu"))
    before = [copy.deepcopy(list(each.parameters())) for each in (players.critic, players.generator)]
    for _ in range(2):
        logged = step(players, torch.rand(8, *shape) * 2 - 1)
    assert {"critic_loss", "generator_loss"} <= logged.keys()
    assert torch.tensor(list(logged.values())).isfinite().all()
    for player, was in zip((players.critic, players.generator), before, strict=True):
        assert all(p.isfinite().all() for p in player.parameters())
        assert any(not torch.equal(now, then) for now, then in zip(player.parameters(), was, strict=True))


def test_an_epoch_gives_every_image_once_in_minus_one_to_one() -> None:
    images = torch.arange(256, dtype=torch.uint8).view(256, 1, 1, 1)
    seen = torch.cat(list(textbook.batches(images, 64, torch.device("cpu"))))
    torch.testing.assert_close(seen.flatten().sort().values, images.flatten() / 127.5 - 1)
