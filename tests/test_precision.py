"""The precision of training: bfloat16 only where the device computes in it."""

import os
import subprocess
import sys

import pytest
import torch

from bench.system.environment import computes_bfloat16
from tasks.classification import Classification


@pytest.mark.parametrize(
    ("level", "instructions", "matrices", "expected"),
    [
        ("AVX512", True, False, "bfloat16"),
        ("AVX512", False, True, "bfloat16"),
        ("AVX512", False, False, "float32"),
        ("AVX2", True, True, "float32"),
    ],
)
def test_auto_takes_what_the_processor_computes_in(
    monkeypatch, level, instructions, matrices, expected
):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: level)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: instructions)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: matrices)
    task = Classification(dataset="fake", arch="resnet18")
    assert task.recipe.precision == task.identity()["precision"] == expected
    said = Classification(dataset="fake", arch="resnet18", precision="bfloat16")
    assert said.recipe.precision == "bfloat16"
    assert Classification(dataset="fake", arch="convnet3").recipe.precision == "float32"


def test_a_narrower_instruction_set_can_be_asked_for():
    says = "from bench.system.environment import computes_bfloat16 as c; print(c('cpu'))"
    narrow = {**os.environ, "ATEN_CPU_CAPABILITY": "avx2"}
    done = subprocess.run(
        [sys.executable, "-c", says], env=narrow, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"
    assert isinstance(computes_bfloat16("cpu"), bool)
