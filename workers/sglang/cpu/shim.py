"""Lets SGLang's CUDA build import on a machine without a GPU. setup.sh installs it as the environment's sitecustomize.

Three things, and nothing else:
  * with a torch built for CPUs it defines the two torchvision operators whose CUDA library then cannot load, before
    torchvision refers to them;
  * it answers imports of `sgl_kernel` (CUDA kernels) with placeholders that raise NotImplementedError when called;
  * it makes the controller of data-parallel ranks sleep for a millisecond between looks at its queue (0.5.21 spins,
    which takes half of a machine with two cores).
With --device cpu and the torch_native attention backend, no placeholder is ever called.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import sys
import time
import types
from collections.abc import Callable, Sequence

CONTROLLER = "sglang.srt.managers.data_parallel_controller"


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


class PatientController(importlib.abc.MetaPathFinder):
    """Steps in once, when the controller's module is first imported: what receives for it waits when nothing came."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name != CONTROLLER:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            load = spec.loader.exec_module

            def exec_module(module: types.ModuleType) -> None:
                load(module)
                module.sock_recv = _patient(module.sock_recv)  # type: ignore[attr-defined]

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def _patient(receive: Callable[..., object]) -> Callable[..., object]:
    def receive_or_sleep(*args: object, **kwargs: object) -> object:
        try:
            return receive(*args, **kwargs)
        except Exception:  # zmq.Again: nothing there
            time.sleep(0.001)
            raise

    return receive_or_sleep


sys.meta_path.insert(0, DefineTorchvisionOps())
sys.meta_path.insert(0, PatientController())
sys.meta_path.append(PlaceholderFinder())
