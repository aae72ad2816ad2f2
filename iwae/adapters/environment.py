"""Models that whoever starts the explorer names: ``IWAE_ADAPTERS=module:function``, or several, separated by commas.

Each function is called once, without arguments, and returns a model or a dict of models by name. It is code that runs
with all rights of the server, so it is named in the environment alone: nothing that a visitor sends gets here.
"""

import copy
import hashlib
import importlib
import os
import threading
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch

from iwae.adapters.wrapping import TRIED, AdapterError, WrappedModel, check_module, check_title
from iwae.data.arrays import MAX_SIDE
from iwae.model import Model
from iwae.shapes import checked_shape
from iwae.system.files import printable

VARIABLE = "IWAE_ADAPTERS"
PREFIX = "adapter:"  # with which keys of these models begin

_lock = threading.Lock()  # for two first visitors at once


@dataclass(frozen=True)
class NamedModel:
    """A model and what tells it from others: a hash of what it computes of fixed images and codes."""

    model: Model
    fingerprint: str


def models() -> tuple[dict[str, NamedModel], dict[str, str]]:
    """(models by name, reasons by place for those that could not be had: ``IWAE_ADAPTERS module:function``)."""
    with _lock:
        return _load(os.environ.get(VARIABLE, ""))


def find(key: str) -> NamedModel:
    """The model of this key, ``adapter:NAME``. Raises AdapterError where there is none."""
    found, reasons = models()
    if one := found.get(key.removeprefix(PREFIX)):
        return one
    there = f"it names {', '.join(f'{PREFIX}{name}' for name in found)}" if found else "it names none"
    raise AdapterError("; ".join([f"{VARIABLE} names no model {printable(key)}: {there}", *reasons.values()]))


def load(key: str, device: str | torch.device) -> Model:
    """The same on the device."""
    model = find(key).model
    return model if model.device.type == torch.device(device).type else copy.deepcopy(model).to(device)


@lru_cache(maxsize=8)
def _load(value: str) -> tuple[dict[str, NamedModel], dict[str, str]]:
    found: dict[str, NamedModel] = {}
    reasons = {}
    for place in filter(None, (part.strip() for part in value.split(","))):
        try:
            for name, model in _call(place).items():
                if name in found:
                    raise AdapterError(f"there are two models called {name!r}")
                found[name] = NamedModel(model, _fingerprint(model))
        except AdapterError as error:
            reasons[f"{VARIABLE} {place}"] = f"{VARIABLE}: {printable(place)}: {printable(error, 500)}"
    return found, reasons


def _call(place: str) -> dict[str, Model]:
    """What ``module:function`` returns, checked. Raises AdapterError for everything that goes wrong."""
    module, _, name = place.partition(":")
    if not module or not name:
        raise AdapterError("it must be module:function, or several, separated by commas")
    with _reported():
        returned = getattr(importlib.import_module(module), name)()
        title = returned.title if isinstance(returned, WrappedModel) else name
        models: dict[str, Any] = dict(returned) if isinstance(returned, Mapping) else {title: returned}
    if not models:
        raise AdapterError(f"{name}() returned no model")
    for title, model in models.items():
        _check(name, title, model)
    return models


def _check(function: str, title: object, model: object) -> None:
    if not isinstance(model, Model):
        raise AdapterError(
            f"{function}() returned a {type(model).__name__} where a model is needed, as iwae.adapters.wrap makes it"
        )
    check_title(title)
    check_module(model, str(title))
    try:
        checked_shape(model.config.shape, MAX_SIDE)
    except ValueError as error:
        raise AdapterError(f"{title}: {error}") from None


@contextmanager
def _reported() -> Iterator[None]:
    """Whatever somebody else's code raises becomes an AdapterError."""
    try:
        yield
    except (Exception, SystemExit) as error:
        traceback.print_exc()  # on the terminal of whoever started the server
        raise AdapterError(" ".join(f"{type(error).__name__}: {error}".split())) from None


@_reported()
@torch.no_grad()
def _fingerprint(model: Model) -> str:
    x = torch.zeros(TRIED, model.config.pixels, device=model.device)
    x[1] = 1
    x[2, ::2] = 1
    mean, log_std = model.encode_first(x)
    computed = torch.cat([part.flatten() for part in (mean, log_std, model.logits(mean))])
    return hashlib.sha256(computed.cpu().numpy().tobytes()).hexdigest()
