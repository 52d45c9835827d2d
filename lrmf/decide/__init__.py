"""Decisions from forecasts: ask about a model, choose the next answers, plan merges."""

from importlib import import_module

__all__ = ["EarlyStopping", "chosen_answers"]
_MODULES = {"EarlyStopping": "early_stopping", "chosen_answers": "chosen"}


def __getattr__(name: str):
    # Modules are imported on first use, so that each command loads only what it needs.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_MODULES[name]}", __name__), name)
