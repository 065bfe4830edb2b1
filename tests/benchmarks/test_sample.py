"""Sampling."""

import dataclasses

import torch
from diffusers import DDIMPipeline, DDIMScheduler

from bench.contract.zoo import Layout, Zoo
from bench.system.randomness import derive, generator, scoped
from generators.pdiff import PDiff
from tasks.fast.features import FeatureNetwork
from tasks.fast.image_scoring import ImageScorer, Reference
from tasks.fast.sampling import Sampler
from tasks.networks.layers import select
from tests.networks import Shape, build


def test_sample_pdiff_100(versus, short):
    """The quick preset, 100 models at once, against 1000-step ancestral sampling, one model at a time."""
    dim, count = 2048, 100
    vectors = torch.randn(50, dim, generator=generator(0, "zoo"))
    zoo = Zoo(vectors, Layout(("weight",), ((dim,),)), scores=(0.0,) * 50)
    quick = PDiff(autoencoder_iterations=30, denoiser_iterations=30)
    quick.fit(zoo, rng=generator(0, "fit"))
    ancestral = dataclasses.replace(quick, sampler="ddpm", sampler_steps=quick.timesteps)
    vars(ancestral).update(
        {name: value for name, value in vars(quick).items() if name.endswith("_")}
    )
    rng = generator(0, "sample")

    def agree(ours, plain):
        """Two samplers draw different vectors of one distribution, which the zoo's bounds."""
        assert ours.shape == (count, dim)
        assert plain.shape == (1, dim)
        for drawn in (ours, plain):
            assert 0.1 < float(drawn.std()) < 2.0
            assert abs(float(drawn.mean())) < 0.2

    versus(
        lambda: quick.sample(count, rng=derive(rng, "at once")),
        lambda: ancestral.sample(1, rng=derive(rng, "alone")),
        agree,
        scale=count,
        rounds=3 if short else 5,
    )


def test_sample_ddpm_candidates(versus, short):
    """Images of candidates of one UNet, against diffusers' pipeline with one candidate after another."""
    count, size, sample, steps = (16, 128, 2, 10) if short else (64, 256, 8, 10)
    with scoped(generator(0, "unet")):
        model, alone = (build("ddpm8", Shape(1, 8, 0)) for _ in range(2))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.02 * torch.randn_like(parameter))
    alone.load_state_dict(model.state_dict())
    names = select(model, "up_blocks.1.*norm*")
    layout = Layout.of({name: model.get_parameter(name) for name in names})
    own = layout.flatten({name: model.get_parameter(name).detach() for name in names})
    vectors = own + 0.02 * torch.randn(count, layout.dim, generator=generator(0, "candidates"))
    noise = torch.randn(size, 1, 8, 8, generator=generator(0, "noise"))
    network = FeatureNetwork(torch.nn.Identity(), lambda images: images.float(), "pixels")
    reference = Reference.of((noise * 50 + 128).to(torch.uint8), network, "cpu")
    scorer = ImageScorer(model, layout, Sampler("ddim", steps), noise, network, reference)
    pipeline = DDIMPipeline(alone, DDIMScheduler())
    pipeline.set_progress_bar_config(disable=True)

    def ours():
        return torch.cat([scorer.draw(some, size) for some in vectors.split(scorer.together)])

    def plain():
        drawn = []
        for vector in vectors[:sample]:
            alone.load_state_dict(layout.unflatten(vector), strict=False)
            drawn.append(
                pipeline(
                    batch_size=size, generator=generator(0, "noise"), num_inference_steps=steps, output_type="pt",
                ).images
            )  # fmt: skip
        return torch.stack(drawn)

    def agree(images, floats):
        """Rounded to bytes, ours lie within half a step of theirs, and float tolerance."""
        assert (images[:sample] - 255 * floats).abs().max() < 0.5 + 255 * 1e-4

    versus(ours, plain, agree, scale=count / sample, rounds=5 if short else 3)
