"""Images that many candidates draw at once, against diffusers' own pipelines, one candidate at a time."""

import pytest
import torch
from diffusers import DDIMPipeline, DDIMScheduler, DPMSolverMultistepScheduler

from bench.contract.declarations import Shape
from bench.contract.zoo import Layout
from bench.errors import BadRequest
from tasks.fast.sampling import Denoiser, Sampler, pixels, together
from tasks.networks import unets
from tasks.networks.layers import select

TINY = {
    **unets.CONFIGS["ddpm8"],
    "block_out_channels": (8, 16),
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
}
LAST = "up_blocks.1.*norm*"
# Vectors of their own at the beginning, in the middle, at the end and beyond the last block; then all kinds together.
LAYERS = [LAST, "conv_in.bias", "mid_block.*norm*", "conv_norm_out.*", "*conv1*,*time_emb*", "all"]


@pytest.fixture(autouse=True)
def _tiny(monkeypatch):
    monkeypatch.setitem(unets.CONFIGS, "tiny", TINY)


def network():
    """A network whose weights all do something."""
    torch.manual_seed(0)
    model = unets.build(Shape(1, 8, 0), "tiny").eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def candidates(layers, count=3):
    """The layout of these layers, and vectors around the network's own."""
    model = network()
    layout = Layout.of({name: model.get_parameter(name) for name in select(model, layers)})
    own = layout.flatten({name: model.get_parameter(name).detach() for name in layout.names})
    rng = torch.Generator().manual_seed(1)
    return layout, own + 0.1 * torch.randn(count, layout.dim, generator=rng)


def noise(count=5):
    return torch.randn(count, 1, 8, 8, generator=torch.Generator().manual_seed(2))


@torch.inference_mode()
def drawn(layout, vectors, sampler, start, count=3):
    """Ours, as [0, 1] and one row a candidate."""
    denoiser = Denoiser(network(), layout, count, sampler.times)
    denoiser.set_candidates(vectors)
    images = sampler(denoiser, start).unflatten(0, (len(vectors), -1))
    return (images / 2 + 0.5).clamp(0, 1)


def loaded(layout, vector):
    model = network()
    model.load_state_dict(layout.unflatten(vector), strict=False)
    return model


@pytest.mark.parametrize("layers", LAYERS)
def test_images_are_those_of_diffusers_pipeline(layers, monkeypatch):
    layout, vectors = candidates(layers, count=3 if layers in LAYERS[:4] else 1)
    start = noise()
    ours = drawn(layout, vectors, Sampler("ddim", 6), start)
    monkeypatch.setattr(
        "diffusers.pipelines.ddim.pipeline_ddim.randn_tensor", lambda *_, **__: start
    )
    for vector, images in zip(vectors, ours, strict=True):
        pipeline = DDIMPipeline(loaded(layout, vector), DDIMScheduler())
        pipeline.set_progress_bar_config(disable=True)
        theirs = pipeline(batch_size=len(start), num_inference_steps=6, output_type="pt").images
        assert torch.allclose(images, theirs, atol=1e-4)
    assert len(ours) == 1 or (ours[0] - ours[1]).abs().max() > 1e-2


@torch.inference_mode()
def test_dpm_solver_is_diffusers_own_loop():
    layout, vectors = candidates(LAST)
    ours = drawn(layout, vectors, Sampler("dpm-solver++", 5), noise())
    for vector, images in zip(vectors, ours, strict=True):
        model, scheduler, found = loaded(layout, vector), DPMSolverMultistepScheduler(), noise()
        scheduler.set_timesteps(5)
        for time in scheduler.timesteps:
            found = scheduler.step(model(found, time).sample, time, found).prev_sample
        assert torch.allclose(images, (found / 2 + 0.5).clamp(0, 1), atol=1e-4)


@pytest.mark.parametrize("name", ["ddim", "dpm-solver++"])
def test_images_do_not_depend_on_how_candidates_and_images_are_batched(name):
    layout, vectors = candidates(LAST)
    start, sampler = noise(24), Sampler(name, 4)
    whole = drawn(layout, vectors, sampler, start)
    # Not bit for bit: without AVX-512, kernels for several candidates add up in another order than those for one.
    alone = [drawn(layout, row[None], sampler, start, count=2) for row in vectors]
    assert torch.allclose(whole, torch.cat(alone), atol=1e-4)
    pieces = [drawn(layout, vectors, sampler, some) for some in start.split(7)]
    assert torch.allclose(whole, torch.cat(pieces, dim=1), atol=1e-3)


@torch.inference_mode()
def test_what_candidates_share_on_the_first_step_runs_once():
    layout, vectors = candidates(LAST)
    sampler, rows = Sampler("ddim", 2), {"conv_in": [], "up_blocks.0": [], "up_blocks.1": []}
    denoiser = Denoiser(network(), layout, 3, sampler.times)
    denoiser.set_candidates(vectors)
    for name, seen in rows.items():
        denoiser.model.get_submodule(name).register_forward_pre_hook(
            lambda _, inputs, seen=seen: seen.append(len(inputs[0]))
        )
    sampler(denoiser, noise(5))
    assert rows == {"conv_in": [5, 15], "up_blocks.0": [5, 15], "up_blocks.1": [15, 15]}


def test_candidates_with_kernels_or_times_of_their_own_run_alone():
    assert together(candidates(LAST)[0])
    assert not together(candidates("*conv1.weight")[0])
    assert not together(candidates("time_embedding.linear_1.bias")[0])


def test_pixels_are_rounded_as_a_pipeline_rounds_them():
    images = torch.tensor([-1.5, -1.0, 0.0, 0.999, 2.0]).view(5, 1, 1, 1).expand(5, 1, 2, 2)
    expected = DDIMPipeline.numpy_to_pil((images / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).numpy())
    assert pixels(images)[:, 0, 0, 0].tolist() == [image.getpixel((0, 0)) for image in expected]


@pytest.mark.parametrize(
    ("name", "steps", "message"),
    [("dim", 10, "did you mean 'ddim'"), ("ddim", 0, "steps is 0"), ("ddim", 1001, "1 to 1000")],
)
def test_samplers_must_be_known_and_take_a_step(name, steps, message):
    with pytest.raises(BadRequest, match=message):
        Sampler(name, steps)
