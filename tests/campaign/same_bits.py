"""Print digests of what this machine computes, for another machine's: python tests/campaign/same_bits.py OUT

With kernels held to one instruction set (the default) and natively: single operations, the weights and records of the
smoke benchmark, and short trainings of rows of other benchmarks. Machines agree where their lines do. Takes about five
minutes on one core; OUT is a folder to work in, with the digests in OUT/digests.json.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
MODES = {
    "held": {},
    "native": {"FLEXSEG_NATIVE_KERNELS": "1"},
    "held, MKL AVX2": {"MKL_CBWR": "AVX2"},
    "held, MKL AVX2 strict": {"MKL_CBWR": "AVX2,STRICT"},
}
OPERATIONS = """
import sys
from flexseg.kernels import hold_kernels
hold_kernels()
import hashlib, json
import cv2, numpy as np, torch
from flexseg.engine.ledger import kernels_in_use
torch.set_num_threads(1)
def of(value):
    value = value.detach().contiguous().numpy() if isinstance(value, torch.Tensor) else np.ascontiguousarray(value)
    return hashlib.sha256(value.tobytes()).hexdigest()[:12]
g = torch.Generator().manual_seed(0)
def draw(*shape): return torch.randn(*shape, generator=g)
x, w, a, b = draw(8, 32, 32, 64), draw(32, 32, 3, 3), draw(4096, 256), draw(256, 19)
y = x.clone().requires_grad_(); v = w.clone().requires_grad_()
torch.nn.functional.conv2d(y.to(memory_format=torch.channels_last), v, padding=1).square().mean().backward()
r = np.random.default_rng(0); p = r.standard_normal((500, 300)); q = p.astype(np.float32)
image = r.integers(0, 255, (96, 192, 3), dtype=np.uint8)
found = {
    "matmul": of(a @ b), "small matmul": of(a[:64, :37] @ b[:37]),
    "bmm": of(torch.bmm(x[:, 0], x[:, 1].transpose(1, 2))),
    "conv": of(torch.nn.functional.conv2d(x, w, padding=1)), "conv gradients": of(y.grad) + of(v.grad),
    "batch norm": of(torch.nn.functional.batch_norm(x, None, None, training=True)),
    "softmax": of(torch.log_softmax(x, 1)), "exp": of(x.exp()), "sum": of(x.sum((0, 2, 3))),
    "gelu": of(torch.nn.functional.gelu(x)),
    "interpolate": of(torch.nn.functional.interpolate(x, scale_factor=2.5, mode="bilinear")),
    "numpy matmul": of(p @ p.T), "numpy float32 matmul": of(q @ q.T), "numpy exp": of(np.exp(p)),
    "numpy log": of(np.log(np.abs(p))),
    "numpy float32 exp": of(np.exp(q)), "numpy sum": of(p.sum(0)),
    "numpy tanh": of(np.tanh(p)), "numpy sin": of(np.sin(q)),
    "opencv resize": of(cv2.resize(image, (97, 41))), "opencv blur": of(cv2.GaussianBlur(image, (5, 5), 1.2)),
    "opencv float blur": of(cv2.GaussianBlur(q, (5, 5), 1.2)),
}
z = x.abs() + 1e-9
other = {"sqrt": of(z.sqrt()), "log2": of(z.log2()), "double log": of(z.double().log()), "pow(0.5)": of(z.pow(0.5))}
facts = {"kernels": kernels_in_use(), "operations": found, "roots and logarithms": other}
json.dump(facts, open(sys.argv[1], "w"))
"""
TRAINING = """
import sys
from flexseg.kernels import hold_kernels
hold_kernels()
import json
from pathlib import Path
from flexseg.benchmark import Run, load_benchmark
from flexseg.files import read_json
from flexseg.tasks.datasets import make_dataset
from flexseg.tasks.jobs import Resources, train_run
out, root, name = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
rows, iterations = sys.argv[4].split(","), int(sys.argv[5])
benchmark = load_benchmark(name, root / "benchmarks")
small = {key: domain.model_copy(update={"train": 40, "val": 0, "test": 0}) for key, domain in benchmark.domains.items()}
training = benchmark.training.model_copy(update={"iterations": iterations, "warmup": 5})
benchmark = benchmark.model_copy(update={"domains": small, "training": training}).with_methods(root / "methods")
found = {}
for domain in (benchmark.source, benchmark.generated):
    make_dataset(benchmark, domain, out)
for row in rows:
    run = Run(benchmark, row, 0, out)
    train_run(run, Resources())
    record = read_json(run.directory.record)
    found[row] = {"weights": record["weights_sha256"][:16], "images/s": record["images_per_second"]}
    found["data"] = record["data"]
json.dump(found, open(out / "found.json", "w"))
"""
TRAININGS = (
    ("smoke", "dginstyle,flexseg", 30),
    ("streetworld_small", "dginstyle,flexseg,shade", 40),
    ("streetworld_mit", "dginstyle", 10),
)


def run(code: str, mode: str, *arguments: str) -> None:
    """Run a piece of code in a fresh process in a mode."""
    environment = {
        key: value for key, value in os.environ.items() if not key.startswith(("MKL", "ONEDNN", "OPENBLAS", "ATEN"))
    }
    environment |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | MODES[mode]
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, *arguments], env=environment, check=True, stdout=subprocess.DEVNULL
    )


def main(out: Path) -> None:
    """Measure, print and write everything."""
    out.mkdir(parents=True, exist_ok=True)
    found: dict[str, object] = {}
    for mode in MODES:
        path = out / "operations.json"
        run(OPERATIONS, mode, str(path))
        found[mode] = json.loads(path.read_text())
    for mode in ("held", "native"):
        for name, rows, iterations in TRAININGS:
            folder, start = out / mode / name, time.monotonic()
            run(TRAINING, mode, str(folder), str(ROOT), name, rows, str(iterations))
            found[f"{name}, {mode}"] = json.loads((folder / "found.json").read_text())
            print(f"{name}, {mode}: {time.monotonic() - start:.0f} s", file=sys.stderr)
    (out / "digests.json").write_text(json.dumps(found, indent=1))
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
