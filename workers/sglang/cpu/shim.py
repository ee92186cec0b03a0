"""Lets SGLang's CUDA build import on a machine without a GPU. setup.sh installs it as the environment's sitecustomize.

Two things, and nothing else:
  * with a torch built for CPUs it defines the two torchvision operators whose CUDA library then cannot load, before
    torchvision refers to them;
  * it answers imports of `sgl_kernel` (CUDA kernels) with placeholders that raise NotImplementedError when called.
With --device cpu and the torch_native attention backend, no placeholder is ever called.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
import types
from collections.abc import Sequence


class DefineTorchvisionOps(importlib.abc.MetaPathFinder):
    """Steps in once, when torchvision is first imported, and finds nothing itself."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: types.ModuleType | None = None) -> None:
        if name == "torchvision":
            sys.meta_path.remove(self)
            import torch  # type: ignore[import-not-found]  # only in the environment of setup.sh

            if torch.version.cuda is not None:
                return  # this torch brings what torchvision's library needs, and the library defines its operators
            for op in ("nms", "qnms"):
                torch.library.define(
                    f"torchvision::{op}", "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
                )


class Placeholder:
    """A kernel that is not there: it can be imported and named, not called."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.__name__ = name.rsplit(".", 1)[-1]

    def __getattr__(self, attribute: str) -> Placeholder:
        if attribute.startswith("__"):
            raise AttributeError(attribute)
        return Placeholder(f"{self._name}.{attribute}")

    def __call__(self, *args: object, **kwargs: object) -> None:
        raise NotImplementedError(f"{self._name} is a CUDA kernel")


class PlaceholderModule(types.ModuleType):
    """A module whose every public name is a placeholder."""

    def __getattr__(self, attribute: str) -> Placeholder:
        if attribute.startswith("__"):
            raise AttributeError(attribute)
        return Placeholder(f"{self.__name__}.{attribute}")


class PlaceholderFinder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds `sgl_kernel` and everything below it. Last on the path: a real package would win."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name.split(".")[0] == "sgl_kernel":
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        return PlaceholderModule(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        """Nothing to run."""


sys.meta_path.insert(0, DefineTorchvisionOps())
sys.meta_path.append(PlaceholderFinder())
