"""A trunk's description reaches registered modules and nothing else: it cannot run code."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from builders import unet

from flexseg.errors import UserError
from flexseg.models import build_segmentor

UNET = {"type": "UNet", "in_channels": 3}


@pytest.mark.parametrize(
    "model",
    [
        {"backbone": {"type": "os.system", "command": "touch PWNED"}},
        {"backbone": {"type": "antigravity"}},
        {"backbone": UNET | {"init_cfg": {"type": "subprocess.getoutput", "cmd": "touch PWNED"}}},
        {"backbone": UNET | {"init_cfg": [{"type": "Pretrained", "checkpoint": "x.pth"}]}},
        {"backbone": UNET | {"init_cfg": {"type": "Constant", "val": 1, "_scope_": "planted"}}},
        {"backbone": UNET | {"norm_cfg": {"type": "planted"}}},
        {"backbone": UNET | {"act_cfg": {"type": "builtins.exec", "source": "1"}}},
        {"backbone": {"type": "CLIPTextEncoder", "dataset_name": None, "cache_path": "x.pth"}},
        {"backbone": {"type": "CrossEntropyLoss"}},
        {"backbone": {"type": "FCNHead", "in_channels": 3, "channels": 3}},
        {"backbone": {"type": "VPD", "diffusion_cfg": {"checkpoint": "x.pth"}}},
        {"backbone": {"type": "VPD", "diffusion_cfg": {}, "class_embed_path": "x.pth"}},
        {"neck": {"type": "builtins.print"}},
        {"decode_head": {"type": "planted.Head"}},
        {"auxiliary_head": [{"type": "os.remove", "path": "x.pth"}]},
        {"hrda": {"detail": [64, 64], "attention": {"type": "os.remove", "path": "x.pth"}}},
    ],
    ids=lambda model: json.dumps(model)[:60],
)
def test_a_description_runs_no_code(model: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a description names, and however deep: an error, nothing imported, nothing called, nothing unpickled."""
    planted = "import pathlib; pathlib.Path('PWNED').touch()"
    for name in ("planted.py", "registry.py"):
        (tmp_path / name).write_text(planted)
    torch.save(torch.nn.Linear(1, 1), tmp_path / "x.pth")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr("torch.load", lambda *_, **__: pytest.fail("unpickled"))
    with pytest.raises(UserError):
        build_segmentor(unet() | model)
    assert "planted" not in sys.modules
    assert "antigravity" not in sys.modules
    assert not (tmp_path / "PWNED").exists()
    assert (tmp_path / "x.pth").exists()
