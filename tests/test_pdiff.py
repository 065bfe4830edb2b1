"""p-diff and the VAE: the equations, the statistics of what is generated, and the edges."""

import functools
import math
import shutil

import pytest
import torch
from torch import nn

from bench.contract.zoo import Layout, Zoo
from bench.errors import BadRequest, BenchError
from bench.system.randomness import generator
from generators.networks.blocks import NORMALIZATIONS, norm
from generators.networks.training import batch
from generators.pdiff import PREDICTIONS, SAMPLERS, SCALINGS, LatentScaler, PDiff
from generators.vae import VAE

TINY = {"channels": (4, 8), "stride": 4, "width": 16, "latent_dim": 6}
BRIEF = TINY | {
    "denoiser_channels": (4, 8),
    "autoencoder_iterations": 3,
    "denoiser_iterations": 3,
    "sampler_steps": 3,
}


@pytest.fixture(autouse=True)
def _one_thread():
    """Small tensors: more threads only wait for each other, for ever on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


RANK, DIM = 3, 90


def directions():
    """Orthonormal rows along which the Gaussian zoo varies, and its standard deviation along each."""
    q, _ = torch.linalg.qr(torch.randn(DIM, RANK, generator=generator(1)))
    return q.T, torch.tensor([3.0, 2.0, 1.0])


def gaussian_zoo(k=200):
    """Rows from a Gaussian of rank 3 around a fixed vector."""
    axes, stds = directions()
    centre = torch.randn(DIM, generator=generator(2))
    rows = centre + (torch.randn(k, RANK, generator=generator(3)) * stds) @ axes
    return Zoo(rows, Layout(("weight", "bias"), ((8, 11), (2,))))


@pytest.fixture(scope="module")
def fitted():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    model = PDiff(
        channels=(16, 16), latent_dim=16, autoencoder_iterations=200, denoiser_iterations=300
    )
    model.fit(gaussian_zoo(), rng=generator(0))
    torch.set_num_threads(threads)
    return model


def test_the_autoencoder_reconstructs(fitted):
    values = fitted.standardizer_.apply(gaussian_zoo().vectors)
    with torch.no_grad():
        error = (fitted.decoder_(fitted.encoder_(values)) - values).square().mean()
    assert error < 0.1  # the variance is 1


def test_generated_vectors_lie_where_the_originals_lie(fitted):
    zoo = gaussian_zoo()
    axes, _ = directions()
    samples = fitted.sample(400, rng=generator(5))
    assert samples.shape == (400, DIM)
    ours, theirs = ((v - zoo.vectors.mean(0)) @ axes.T for v in (samples, zoo.vectors))
    spread = theirs.std(0)
    assert ((ours.mean(0) - theirs.mean(0)).abs() < 0.25 * spread).all()
    assert (ours.std(0) / spread).sub(1).abs().max() < 0.25
    off = samples - zoo.vectors.mean(0) - ours @ axes
    assert off.norm(dim=1).mean() < 0.3 * ours.norm(dim=1).mean()


def test_generated_vectors_differ_from_each_other_as_the_originals_do(fitted):
    ratio = torch.pdist(fitted.sample(100, rng=generator(5))).mean()
    ratio /= torch.pdist(gaussian_zoo().vectors).mean()
    assert 0.8 < ratio < 1.2


@pytest.mark.parametrize("make", [lambda: PDiff(**BRIEF), lambda: VAE(**TINY, iterations=3)])
def test_the_seed_decides_everything(make):
    zoo, rng = gaussian_zoo(20), generator(0)
    first = make().fit(zoo, rng=rng).sample(5, rng=rng)
    rng.manual_seed(rng.initial_seed())
    torch.rand(7)  # the global generator plays no part
    torch.rand(7, generator=rng)  # nor does the state of rng
    again = make().fit(zoo, rng=rng).sample(5, rng=rng)
    assert torch.equal(first, again)
    other = make().fit(zoo, rng=generator(1)).sample(5, rng=rng)
    assert not torch.equal(first, other)


def test_the_callers_global_generator_is_left_alone():
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    PDiff(**BRIEF).fit(gaussian_zoo(5), rng=generator(0)).sample(2, rng=generator(0))
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize("standardize", ["tensor", "parameter"])
@pytest.mark.parametrize("k", [1, 2, 5])
@pytest.mark.parametrize("dim", [1, 7, 101])
def test_few_checkpoints_and_odd_lengths(dim, k, standardize):
    vectors = torch.randn(k, dim + 2, generator=generator(0))
    vectors[:, -2] = 0.3
    vectors[:, -1] = -1.0
    zoo = Zoo(vectors, Layout(("w", "constant", "scalar"), ((dim,), (1,), ())))
    for model in (PDiff(**BRIEF, standardize=standardize), VAE(**TINY, iterations=2)):
        samples = model.fit(zoo, rng=generator(0)).sample(3, rng=generator(0))
        assert samples.shape == (3, dim + 2)
        assert samples.dtype == torch.float32
        assert samples.isfinite().all()
        assert (samples[:, -2:] == vectors[0, -2:]).all()


@pytest.mark.parametrize("model", [PDiff(**BRIEF), VAE(**TINY, iterations=2)])
def test_one_checkpoint_is_given_back(model):
    zoo = gaussian_zoo(1)
    samples = model.fit(zoo, rng=generator(0)).sample(3, rng=generator(0))
    assert torch.equal(samples, zoo.vectors.expand(3, -1))


@pytest.mark.parametrize("blocks", ["conv", "linear"])
@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@pytest.mark.parametrize("k", [1, 9])
def test_blocks_and_normalizations(blocks, normalization, k):
    model = PDiff(**BRIEF, blocks=blocks, normalization=normalization, batch_size=4)
    samples = model.fit(gaussian_zoo(k), rng=generator(0)).sample(6, rng=generator(0))
    assert samples.shape == (6, DIM)
    assert samples.isfinite().all()


def blank(**options):
    """A p-diff whose denoiser is the zero function, as it is before training."""
    model = PDiff(**(BRIEF | {"denoiser_learning_rate": 1e-30, "latent_dim": 12} | options))
    return model.fit(gaussian_zoo(30), rng=generator(0))


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("steps", [1, 2, 25, 100])
def test_every_sampler_keeps_a_standard_normal(sampler, steps):
    """Velocity 0 is the exact denoiser of standard normal latents."""
    model = blank(sampler=sampler, sampler_steps=steps, timesteps=100, beta_end=0.2)
    z = model.sample_latents(500, generator(0))
    assert z.isfinite().all()
    assert z.mean().abs() < 0.05
    assert steps < 25 or abs(z.std() - 1) < 0.15  # ancestral steps lose some spread


@pytest.mark.parametrize("timesteps", [2, 10, 1000])
def test_forward_process_has_the_closed_form_marginal(timesteps):
    """Eq. 1 applied t times gives mean sqrt(alpha_bar_t) and variance 1 - alpha_bar_t."""
    model = PDiff(timesteps=timesteps, sampler_steps=1)
    process, (mean, variance) = model.scheduler("ddpm"), (1.0, 0.0)
    ones, zeros = torch.ones(1, 1), torch.zeros(1, 1)
    for t in range(timesteps):
        rise = (model.beta_end - model.beta_start) / (timesteps - 1)
        beta = model.beta_start + t * rise
        mean, variance = mean * math.sqrt(1 - beta), variance * (1 - beta) + beta
        if t in (0, 1, timesteps // 2, timesteps - 1):
            at = torch.tensor([t])
            assert process.add_noise(ones, zeros, at).item() == pytest.approx(mean, rel=1e-3)
            noised = process.add_noise(zeros, ones, at).item()
            assert noised**2 == pytest.approx(variance, rel=1e-3)


def test_epsilon_of_the_true_velocity_is_the_noise():
    model = blank()
    z, noise = torch.randn(8, 12), torch.randn(8, 12)
    t = torch.randint(1000, (8,))
    a = model.alpha_bar_[t][:, None]

    class Velocity(nn.Module):
        def forward(self, _z, _t):
            return a.sqrt() * noise - (1 - a).sqrt() * z

    noisy = model.process_.add_noise(z, noise, t)
    torch.testing.assert_close(model.epsilon(Velocity(), noisy, t), noise)


def test_diffusion_loss_is_equation_6():
    """With epsilon predicted as 0 the loss is the mean square of the noise, 1."""
    model = blank(prediction="epsilon")
    loss = model.diffusion_loss(model.denoiser_, torch.randn(500, 12), generator(0))
    assert loss.item() == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize("prediction", PREDICTIONS)
@pytest.mark.parametrize("scaling", SCALINGS)
def test_predictions_and_scalings(prediction, scaling):
    model = PDiff(**BRIEF, prediction=prediction, latent_scaling=scaling)
    samples = model.fit(gaussian_zoo(9), rng=generator(0)).sample(2, rng=generator(0))
    assert samples.isfinite().all()


@pytest.mark.parametrize("scaling", SCALINGS)
def test_latent_scaling(scaling):
    mixing = torch.randn(4, 5, generator=generator(0))
    z = torch.randn(300, 4, generator=generator(1)) @ mixing + 3
    scaler = LatentScaler.fit(z, scaling)
    x = scaler.apply(z)
    torch.testing.assert_close(scaler.undo(x), z, atol=1e-4, rtol=1e-4)
    if scaling == "none":
        assert torch.equal(x, z)
        return
    assert x.square().mean().item() == pytest.approx(0.8 if scaling == "whiten" else 1, abs=1e-3)
    if scaling == "whiten":
        covariance = x.T @ x / len(x)
        torch.testing.assert_close(covariance.diag(), torch.tensor([1.0] * 4 + [0.0]))
        assert (covariance - covariance.diag().diag()).abs().max() < 1e-3


def test_latents_that_do_not_vary_are_not_sampled():
    z = torch.tensor([[1.0, 5.0], [3.0, 5.0]])
    for scaling in ("whiten", "dimension"):
        back = LatentScaler.fit(z, scaling).undo(torch.randn(50, 2))
        torch.testing.assert_close(back[:, 1], torch.full((50,), 5.0))


def test_a_learning_rate_that_is_far_too_high_says_what_to_try():
    model = PDiff(**(BRIEF | {"autoencoder_learning_rate": 1e30, "normalization": "none"}))
    with pytest.raises(
        BenchError, match=r"loss of the autoencoder is .* at iteration 3: try a low"
    ):
        model.fit(gaussian_zoo(9), rng=generator(0))
    model = PDiff(**(BRIEF | {"denoiser_learning_rate": 1e30, "normalization": "none"}))
    with pytest.raises(BenchError, match=r"loss of the denoiser is .* at iteration 3"):
        model.fit(gaussian_zoo(9), rng=generator(0))


@pytest.mark.parametrize(
    "bad",
    [
        {"sampler": "euler"},
        {"prediction": "x0"},
        {"latent_scaling": "unit"},
        {"denoiser_channels": ()},
        {"input_noise": -1.0},
        {"latent_noise": math.nan},
        {"autoencoder_iterations": 0},
        {"denoiser_iterations": 0},
        {"autoencoder_learning_rate": 0.0},
        {"denoiser_learning_rate": math.inf},
        {"ema_decay": 1.0},
        {"timesteps": 1},
        {"sampler_steps": 0},
        {"sampler_steps": 1001},
        {"beta_start": 0.0},
        {"beta_start": 0.5},
        {"beta_end": 1.0},
    ],
    ids=str,
)
def test_bad_hyperparameters(bad):
    with pytest.raises(BadRequest, match=next(iter(bad))):
        PDiff(**bad)


@pytest.mark.parametrize(
    "bad", [{"kl_weight": -1.0}, {"iterations": 0}, {"learning_rate": -1.0}, {"latent_dim": 0}]
)
def test_bad_hyperparameters_of_the_vae(bad):
    with pytest.raises(BadRequest, match=next(iter(bad))):
        VAE(**bad)


@pytest.mark.parametrize("kind", [PDiff, VAE])
def test_presets_are_valid(kind):
    for options in kind.presets.values():
        assert kind(**options).hyperparameters() == kind().hyperparameters() | options


def test_the_paper_preset_is_table_4():
    paper = PDiff(**PDiff.presets["paper"])
    assert (paper.batch_size, paper.weight_decay) == (200, 2e-6)
    assert (paper.autoencoder_iterations, paper.denoiser_iterations) == (30_000, 30_000)
    assert (paper.autoencoder_learning_rate, paper.denoiser_learning_rate) == (1e-3, 1e-3)
    assert (paper.input_noise, paper.latent_noise) == (0.001, 0.1)
    assert (paper.timesteps, paper.beta_start, paper.beta_end) == (1000, 1e-4, 2e-2)
    assert (paper.ema_decay, paper.sampler, paper.sampler_steps) == (0.9999, "ddpm", 1000)


# The preset of the published program --------------------------------------------------------------------------------


def test_the_official_preset_is_the_published_program():
    """From the program of its main tables (commit 0ecca89)."""
    made = PDiff(**PDiff.presets["official"])
    assert (made.channels, made.kernel, made.stride) == ((64, 128, 256, 256, 32), 7, 2)
    assert (made.denoiser_channels, made.latent_dim) == ((64, 128, 256, 512), 128)
    assert (made.batch_size, made.weight_decay, made.ema_decay) == (50, 0.0, 0.0)
    assert (made.autoencoder_iterations, made.denoiser_iterations) == (500, 2_000)
    assert (made.autoencoder_learning_rate, made.denoiser_learning_rate) == (2e-5, 1e-4)
    assert (made.input_noise, made.latent_noise, made.standardize) == (0.001, 0.1, "tensor")
    assert (made.sampler, made.sampler_steps, made.prediction) == ("ddpm", 1000, "epsilon")


@pytest.mark.parametrize("shape", [(6, 3, 1, 5), (1, 3, 1, 5), (6, 3), (1, 3)])
def test_batch_normalization_that_is_never_in_eval_mode(shape):
    layer, x = norm("batch-train", 3, 3).eval(), torch.randn(*shape, generator=generator(0))
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([1.0, 2.0, 3.0]))
        layer.bias.fill_(0.5)
        found = layer(x)
    channels = x.transpose(0, 1).flatten(1)
    centred = channels - channels.mean(1, keepdim=True)
    unit = centred / (centred.square().mean(1, keepdim=True) + layer.eps).sqrt()
    expected = unit * torch.tensor([[1.0], [2.0], [3.0]]) + 0.5
    torch.testing.assert_close(found.transpose(0, 1).flatten(1), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("blocks", ["conv", "linear"])
def test_batches_are_encoded_together_to_train_and_vectors_alone_to_sample(blocks):
    official = PDiff.presets["official"] | BRIEF | {"batch_size": 4, "blocks": blocks}
    zoo = gaussian_zoo(9)
    model = PDiff(**official).fit(zoo, rng=generator(0))
    values = model.standardizer_.apply(zoo.vectors)
    draw = model._latent_batches(values, torch.zeros(9, 6))
    with torch.no_grad():
        together = model.encoder_(batch(values, 4, generator(3)))
        assert torch.equal(draw(generator(3)), together)
        latents = model.sample_latents(3, generator(1))
        alone = [model.standardizer_.undo(model.decoder_(z[None])) for z in latents]
    torch.testing.assert_close(model.sample(3, rng=generator(1)), torch.cat(alone))
    torch.testing.assert_close(model.latents(zoo.vectors)[:1], model.latents(zoo.vectors[:1]))


@pytest.mark.filterwarnings("default")  # the compiler looks at everything that it meets
@pytest.mark.skipif(not shutil.which("g++"), reason="needs a C++ compiler")
def test_compiled_networks_learn_the_same_within_rounding(monkeypatch):
    # Graphs are captured and differentiated; making C++ of them is PyTorch's part, and takes half a minute.
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    zoo = gaussian_zoo(5)
    brief = {**BRIEF, "channels": (4,), "denoiser_channels": (4,)}  # compiling takes its time
    plain, compiled = (
        PDiff(**brief, compiled=on).fit(zoo, rng=generator(0)) for on in (False, True)
    )
    for name in ("encoder_", "decoder_", "denoiser_"):
        own, other = (getattr(model, name).state_dict() for model in (plain, compiled))
        assert own.keys() == other.keys()  # nothing of the compiler's stays
        for key, value in own.items():
            torch.testing.assert_close(other[key], value, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kind", [PDiff, VAE])
def test_without_a_compiler_the_error_says_what_to_do(kind, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(BadRequest, match=r"no-such-compiler.*compiled=false"):
        kind(compiled=True).fit(gaussian_zoo(5), rng=generator(0))


def test_the_vaes_divergence_is_that_of_torch_distributions():
    model = VAE(**TINY, kl_weight=2.0, iterations=1).fit(gaussian_zoo(5), rng=generator(0))
    values = model.standardizer_.apply(gaussian_zoo(5).vectors)
    with torch.no_grad():
        mean, log_variance = model.encoder_(values).chunk(2, dim=1)
        posterior = torch.distributions.Normal(mean, (log_variance / 2).exp())
        prior = torch.distributions.Normal(torch.zeros(()), torch.ones(()))
        expected = torch.distributions.kl_divergence(posterior, prior).sum() / values.numel()
        with_it = model.loss(model.encoder_, model.decoder_, values, generator(0))
        model.kl_weight = 1.0
        without = model.loss(model.encoder_, model.decoder_, values, generator(0))
    assert (with_it - without).item() == pytest.approx(expected.item(), rel=1e-3)


def test_the_vae_generates_near_the_zoo():
    zoo = gaussian_zoo()
    model = VAE(channels=(16, 16), latent_dim=8, iterations=200).fit(zoo, rng=generator(0))
    samples = model.sample(200, rng=generator(1))
    spread = zoo.vectors.std(0)
    assert ((samples.mean(0) - zoo.vectors.mean(0)).abs() < 0.4 * spread).all()
    assert 0.4 < (samples.std(0) / spread).mean() < 1.2
