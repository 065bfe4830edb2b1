"""Sampling."""

import dataclasses

import torch

from bench.randomness import derive, generator
from bench.zoo import Layout, Zoo
from generators.pdiff import PDiff


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
