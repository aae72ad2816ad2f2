"""Models from elsewhere: a pair of networks, or what pythae has saved, as a ``Model`` for every measure and page."""

from iwae.adapters.pythae_folder import pythae
from iwae.adapters.wrapping import AdapterError, WrappedConfig, WrappedModel, wrap

__all__ = ["AdapterError", "WrappedConfig", "WrappedModel", "pythae", "wrap"]
