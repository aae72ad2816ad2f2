"""Variational and importance weighted autoencoders: exact bounds, fast training, honest measures.

What is named here is loaded when it is first used, so that ``import iwae`` loads no torch.
"""

__version__ = "0.2.0"

import getpass as _getpass
import importlib as _importlib
import os as _os
from typing import TYPE_CHECKING as _TYPE_CHECKING

_PLACES = {
    "Bound": "bounds",
    "Model": "model",
    "ModelConfig": "model",
    "Estimator": "gradients",
    "TrainConfig": "training.config",
    "Training": "training.loop",
    "load_dataset": "data.datasets:load",
    "evaluate": "evaluation.metrics",
    "posterior": "inference.posterior",
    "encode": "analysis.encode",
    "load": "checkpoints",
    "save": "checkpoints",
}

__all__ = [
    "Bound", "Model", "ModelConfig", "Estimator", "TrainConfig", "Training", "load_dataset", "evaluate", "posterior",
    "encode", "load", "save",
]  # fmt: skip

if _TYPE_CHECKING:
    from iwae.analysis.encode import encode
    from iwae.bounds import Bound
    from iwae.checkpoints import load, save
    from iwae.data.datasets import load as load_dataset
    from iwae.evaluation.metrics import evaluate
    from iwae.gradients import Estimator
    from iwae.inference.posterior import posterior
    from iwae.model import Model, ModelConfig
    from iwae.training.config import TrainConfig
    from iwae.training.loop import Training

try:
    _getpass.getuser()
except (KeyError, OSError, ImportError):  # a user id without an account, as in some containers
    _os.environ["LOGNAME"] = "iwae"  # torch names a folder after the user, and would fail to train


def __getattr__(name: str) -> object:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, other = _PLACES[name].partition(":")
    return getattr(_importlib.import_module(f"{__name__}.{module}"), other or name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_PLACES])
