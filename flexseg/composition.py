"""One method on top of another: the loss of the first, in the network, the data and the passes of the second.

A row with ``method: flexseg`` and ``base: robustnet`` trains RobustNet with FLEX-Seg's loss in the place of its cross
entropy, and draws its images as FLEX-Seg does. Options of the method below are written with its name in front:
``robustnet_weight``.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor, nn

from flexseg.errors import RunError, UserError
from flexseg.method import Batch, Method, Setup
from flexseg.models import Output, Segmentor

OWN = ("build_model", "forward", "losses", "finish")
"""The hooks that a method on top leaves to the one below."""


def on_top(top: type[Method], below: type[Method]) -> type[Method]:
    """The method that trains with the loss of ``top`` what ``below`` builds and passes.

    Raises:
        UserError: ``top`` changes the network or its passes itself.
    """
    for hook in OWN:
        if getattr(top, hook) is not getattr(Method, hook):
            raise UserError(
                f"methods/{top.name}.py cannot stand on {below.name}: its {hook}() changes the network or its passes, "
                "and only a method that changes the loss and the draws of images can"
            )
    prefix = f"{below.name}_"

    class Composed(Method):
        name = top.name
        title = f"{top.title} on {below.title}"
        paper = "; ".join(filter(None, (top.paper, below.paper)))
        data = top.data
        needs = tuple(dict.fromkeys((*top.needs, *below.needs)))
        shows = (*top.shows, *(show for show in below.shows if show.name not in {own.name for own in top.shows}))
        Options = _join_options(top.Options, below.Options, prefix)

        def __init__(self, options: Any, setup: Setup) -> None:
            super().__init__(options, setup)
            self._top = top(_part(options, top.Options, ""), setup)
            self._below = below(_part(options, below.Options, prefix), setup)
            self._asked = False
            self._below.supervise = self._supervise  # type: ignore[method-assign]

        def _supervise(self, batch: Batch, output: Output, log_p: Tensor) -> dict[str, Tensor]:
            self._asked = True
            return self._top.supervise(batch, output, log_p)

        def build_model(self, config: Mapping[str, Any]) -> Segmentor:
            return self._below.build_model(config)

        def build_training_modules(self, model: Segmentor) -> nn.Module | None:
            parts = {"below": self._below.build_training_modules(model), "top": self._top.build_training_modules(model)}
            kept = {name: part for name, part in parts.items() if part is not None}
            return nn.ModuleDict(kept) if kept else None

        def transform(
            self, image: np.ndarray, label: np.ndarray, rng: np.random.Generator
        ) -> tuple[np.ndarray, np.ndarray]:
            return self._top.transform(*self._below.transform(image, label, rng), rng)

        def choose(self, iteration: int, slots: Sequence[int]) -> np.ndarray:
            chooser = self._top if type(self._top).choose is not Method.choose else self._below
            return chooser.choose(iteration, slots)

        @property
        def looks_back(self) -> bool:
            return self._top.looks_back or self._below.looks_back

        def forward(self, model: Segmentor, batch: Batch) -> dict[str, Tensor]:
            self._asked = False
            terms = self._below.forward(model, batch)
            if not self._asked:
                raise RunError(
                    f"methods/{below.name}.py does not ask supervise() for its loss: nothing can stand on it"
                )
            return terms

        def after_step(self, batch: Batch) -> None:
            self._below.after_step(batch)
            self._top.after_step(batch)

        def log(self) -> dict[str, float]:
            return self._below.log() | self._top.log()

        def observe(self, model: Segmentor, images: Tensor, labels: Tensor) -> dict[str, np.ndarray]:
            return self._below.observe(model, images, labels) | self._top.observe(model, images, labels)

        def state(self) -> dict[str, np.ndarray]:
            parts = {"below": self._below.state(), "top": self._top.state()}
            return {f"{name}.{key}": value for name, part in parts.items() for key, value in part.items()}

        def load_state(self, state: Mapping[str, np.ndarray]) -> None:
            for name, part in (("below.", self._below), ("top.", self._top)):
                own = {key.removeprefix(name): value for key, value in state.items() if key.startswith(name)}
                part.load_state(own)

        def finish(self, model: Segmentor, modules: nn.Module | None, batches: Iterator[Batch]) -> Segmentor:
            own = modules["below"] if isinstance(modules, nn.ModuleDict) and "below" in modules else None
            return self._below.finish(model, own, batches)

    return Composed


def _join_options(top: type, below: type, prefix: str) -> type:
    """One dataclass with the options of both, which checks what both check."""
    names = [*_fields(top), *(prefix + name for name in _fields(below))]
    if twice := sorted(name for name in set(names) if names.count(name) > 1):
        raise UserError(f"two methods on each other have an option of one name: {', '.join(twice)}")

    def check(self: Any) -> None:
        _part(self, top, "")
        _part(self, below, prefix)

    parts = [(each, start) for part, start in ((top, ""), (below, prefix)) for each in _described(part).items()]
    fields = [
        (start + name, hint, dataclasses.field(default=each.default, metadata=each.metadata))
        for (name, (hint, each)), start in parts
    ]
    return dataclasses.make_dataclass("Options", fields, frozen=True, namespace={"__post_init__": check})


def _fields(options: type) -> list[str]:
    return [each.name for each in dataclasses.fields(options)]


def _described(options: type) -> dict[str, tuple[Any, Any]]:
    hints = typing.get_type_hints(options)
    return {each.name: (hints[each.name], each) for each in dataclasses.fields(options)}


def _part(options: Any, part: type, prefix: str) -> Any:
    """The options of one of the two methods."""
    return part(**{name: getattr(options, prefix + name) for name in _fields(part)})
