"""The environment of a run: versions, hardware, and the suite's own commit."""

import importlib.metadata
import platform
import subprocess
from pathlib import Path

import torch

from bench.system.data import Json

PACKAGES = ("torch", "torchvision", "timm", "diffusers", "numpy", "scikit-learn", "pgen-bench")


def describe(device: str) -> dict[str, Json]:
    """Return the environment of this process, as the fields of a record's ``environment``."""
    commit = _git("rev-parse", "HEAD")
    changes = _git("status", "--porcelain")
    return {
        "git_commit": commit,
        "git_dirty": None if commit is None or changes is None else bool(changes),
        "python": platform.python_version(),
        "packages": _versions(),
        "cpu": _cpu(),
        "gpu": _gpu(device),
        "threads": torch.get_num_threads(),
    }


def processor(device: str) -> str:
    """Return the name of the GPU or the CPU that a device stands for."""
    return _gpu(device) or _cpu()


def computes_bfloat16(device: str) -> bool:
    """Return whether a device has instructions for bfloat16; a processor without them takes 11 times as long."""
    if device.startswith("cuda"):
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    wide = torch.backends.cpu.get_cpu_capability() == "AVX512"  # ATEN_CPU_CAPABILITY can say less
    return wide and bool(
        torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    )


def _gpu(device: str) -> str | None:
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else None


def _git(*arguments: str) -> str | None:
    """Return the output of git in the suite's checkout; None without a checkout or if git fails."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments],
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _versions() -> dict[str, str]:
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def _cpu() -> str:
    """Return the processor's model name, or its architecture where the system does not tell the name."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine() or "unknown"
