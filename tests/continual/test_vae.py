"""Autoencoders against the distributions they stand for."""

import pytest
import torch
from torch.distributions import Bernoulli, Categorical, Independent, MixtureSameFamily, Normal, kl_divergence

from engram.continual.generative.bi_r import ClassPrior
from engram.continual.generative.vae import VAE, Decoder, Scale, divergence, fresh, reconstruction, sampled


def made(seed=0, **options):
    options = {"shape": (1, 8, 8), "latent": 4, "hidden": 32, "architecture": "dense", **options}
    return fresh(lambda: VAE(**options), "cpu", seed, "test")


def drawn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_the_divergence_is_that_of_normal_distributions():
    mean, log_variance = drawn(7, 5), drawn(7, 5, seed=1)
    there = Normal(mean, (log_variance / 2).exp())
    expected = kl_divergence(there, Normal(0.0, 1.0)).sum(1)
    torch.testing.assert_close(divergence(mean, log_variance), expected)
    spread = sampled(mean, log_variance, torch.ones(7, 5)) - mean
    torch.testing.assert_close(spread, there.stddev)


def test_reconstruction_is_a_mean_negative_log_likelihood():
    out, x = drawn(3, 1, 4, 4), (drawn(3, 1, 4, 4, seed=1) > 0).float()
    expected = -Bernoulli(logits=out).log_prob(x).flatten(1).mean(1)
    torch.testing.assert_close(reconstruction(out, x, True), expected)
    out, x = drawn(3, 6), drawn(3, 6, seed=1)
    there = -(Normal(out, 1.0).log_prob(x) - Normal(0.0, 1.0).log_prob(torch.tensor(0.0)))
    torch.testing.assert_close(reconstruction(out, x, False), there.mean(1))


def test_the_loss_is_an_upper_bound_of_the_negative_log_likelihood():
    """For two latent variables the likelihood itself can be had on a grid."""
    vae = made(latent=2, shape=(1, 2, 2))
    x = torch.tensor([1.0, 0.0, 1.0, 1.0]).view(1, 1, 2, 2)
    axis = torch.linspace(-5, 5, 201)
    grid = torch.cartesian_prod(axis, axis)
    with torch.no_grad():
        given = Bernoulli(logits=vae.decoder(grid)).log_prob(x).flatten(1).sum(1)
        prior = Normal(0.0, 1.0).log_prob(grid).sum(1)
        exact = -(given + prior).logsumexp(0) - 2 * (axis[1] - axis[0]).log()
        bound = vae.losses(x.expand(20000, 1, 2, 2), drawn(20000, 2)).mean() * 4
    assert exact < bound < exact + 0.5


def test_what_is_generated_looks_like_what_was_shown():
    """Two patterns and nothing else: samples are one of them or the other."""
    patterns = (drawn(2, 1, 8, 8) > 0).float()
    vae = made()
    optimizer = torch.optim.Adam(vae.parameters(), 3e-3)
    for step in range(400):
        x = patterns[torch.arange(32) % 2]
        vae.losses(x, drawn(32, 4, seed=step)).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    with torch.no_grad():
        x = vae.sample(drawn(200, 4))
    assert x.min() >= 0 and x.max() <= 1
    error = (x[:, None] - patterns).abs().flatten(2).mean(2)
    assert (error.amin(1) < 0.1).float().mean() > 0.8
    shares = torch.bincount(error.argmin(1), minlength=2) / 200
    assert shares.min() > 0.25


@pytest.mark.parametrize("architecture", ["dense", "conv"])
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 9, 14), (2, 28, 28)])
def test_images_come_back_in_their_shape(architecture, shape):
    vae = made(shape=shape, architecture=architecture)
    x = torch.rand(5, *shape)
    losses = vae.losses(x, drawn(5, 4))
    assert losses.shape == (5,) and vae.sample(drawn(6, 4)).shape == (6, *shape)
    losses.mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in vae.parameters())


def test_first_weights_follow_from_the_seed_alone():
    state = torch.get_rng_state()
    one = made(seed=3)
    assert torch.equal(state, torch.get_rng_state())
    torch.manual_seed(9)
    two, other = made(seed=3), made(seed=4)
    for a, b, c in zip(one.parameters(), two.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b) and not torch.equal(a, c)
    first = one.encoder.body[1]
    assert first.weight.abs().max() <= 1 / 8 < 1.02 * first.weight.abs().max()


def test_gates_silence_their_share_of_the_hidden_units():
    decoder = fresh(lambda: Decoder((1, 8, 8), 4, 300, "dense", 6, 0.25), "cpu", 0, "test")
    silent = (decoder.gates0 == 0).float().mean()
    assert abs(silent - 0.25) < 0.04 and not torch.equal(decoder.gates0, decoder.gates1)
    z, row = drawn(5, 4), torch.tensor([0, 3, 3, 5, 1])
    a = (decoder.layers[0](z) * decoder.gates0[row]).relu()
    b = (decoder.layers[1](a) * decoder.gates1[row]).relu()
    expected = decoder.last(b).view(5, 1, 8, 8)
    torch.testing.assert_close(decoder(z, torch.nn.functional.one_hot(row, 6).float()), expected)


def test_a_class_prior_is_a_mixture_by_belief():
    prior = fresh(lambda: ClassPrior(3, 4), "cpu", 0, "test")
    z, belief = drawn(6, 4), drawn(6, 3, seed=1).softmax(1)
    belief[0] = torch.tensor([0.0, 1.0, 0.0])
    parts = Independent(Normal(prior.mean, (prior.log_variance / 2).exp()), 1)
    expected = torch.stack(
        [MixtureSameFamily(Categorical(row), parts).log_prob(point) for row, point in zip(belief, z, strict=True)]
    )
    found = prior.log_density(z, belief)
    torch.testing.assert_close(found - 2 * torch.log(torch.tensor(2 * torch.pi)), expected, atol=1e-4, rtol=1e-4)
    found[0].backward()
    assert prior.mean.grad.isfinite().all() and prior.mean.grad[1].any() and not prior.mean.grad[[0, 2]].any()


def test_draws_from_a_class_prior_have_its_moments():
    prior = fresh(lambda: ClassPrior(3, 4), "cpu", 0, "test")
    with torch.no_grad():
        z = prior.sample(torch.full((40000,), 2), torch.Generator().manual_seed(0))
    torch.testing.assert_close(z.mean(0), prior.mean[2].detach(), atol=0.05, rtol=0)
    torch.testing.assert_close(z.var(0).log(), prior.log_variance[2].detach(), atol=0.05, rtol=0)


def test_features_are_scaled_to_one_deviation_for_all():
    scale = fresh(lambda: Scale(3), "cpu", 0, "test")
    features = drawn(4000, 3) * torch.tensor([3.0, 1.0, 0.0]) + torch.tensor([5.0, -1.0, 2.0])
    scale.learn(features, 0)
    scaled = scale(features)
    torch.testing.assert_close(scaled.mean(0), torch.zeros(3), atol=1e-4, rtol=0)
    assert scaled.square().mean().sqrt() == pytest.approx(1, abs=1e-3)
    assert (scaled.std(0)[0] / scaled.std(0)[1]).item() == pytest.approx(3, abs=0.2)
    torch.testing.assert_close(scale.back(scaled), features)
