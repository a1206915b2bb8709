"""Labels from report text, by a labeller that the user names. None is built in, as no regular expression is truth.

A labeller is a function of a list of texts that returns one mapping of CheXpert labels to 1, 0, -1 or None for each.
`chexbert` is CheXbert (Smit et al. 2020) through the package f1chexbert, where that is installed.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from synthchex.data import records

Labeller = Callable[[Sequence[str]], Sequence[Mapping[str, Any]]]
# The order of CheXbert's heads.
CHEXBERT = (*records.LABELS[1:], records.LABELS[0])
PROBE = "Chest radiograph."


def load(name: str) -> Labeller:
    """The labeller of a name: `chexbert`, or `module:function` of the user's own.

    Raises:
        ValueError: the name is neither, or there is no such function.
        ImportError: its module is not installed; the message says what to install.
    """
    if name == "chexbert":
        return _chexbert()
    module, colon, function = name.partition(":")
    if not colon or not module or not function:
        raise ValueError(
            f"expected --labeller chexbert or module:function, got {name!r}; the function takes a list of texts "
            "and returns one mapping of labels for each"
        )
    try:
        found = getattr(importlib.import_module(module), function, None)
    except ModuleNotFoundError as error:
        raise ImportError(
            f"--labeller {name} needs {error.name}, which is not installed or not on PYTHONPATH"
        ) from error
    if not callable(found):
        raise ValueError(f"expected a function {function} in {module}, got {found!r}; check --labeller {name}")
    return found


def label(labeller: Labeller, texts: Sequence[str | None]) -> list[dict[str, int | None]]:
    """All 14 states of each text; a row without a text mentions nothing.

    Raises:
        ValueError: the labeller returns another number of rows, another label, or another state.
    """
    there = [text for text in texts if text]
    said = list(labeller(there)) if there else []
    if len(said) != len(there):
        raise ValueError(f"expected {len(there)} rows of labels from the labeller, got {len(said)}; one for each text")
    rows = iter(said)
    return [records.labels_dict(next(rows) if text else None) for text in texts]


def _chexbert() -> Labeller:
    try:
        model = importlib.import_module("f1chexbert").F1CheXbert()
    except ModuleNotFoundError as error:
        raise ImportError(
            f"--labeller chexbert needs {error.name}, which is not installed: pip install f1chexbert, or name your own "
            "labeller as module:function"
        ) from error

    def states(text: str) -> list[Any]:
        found: list[Any] = model.get_label(text, mode="classification")
        return found

    # RadEval's copy gives 0 for what is not mentioned, as for what is absent; f1chexbert gives an empty text.
    if "" not in states(PROBE):
        raise ValueError(
            f"expected a CheXbert that tells absent from not mentioned, got {states(PROBE)} for {PROBE!r}; "
            "install f1chexbert 0.0.2, or name your own labeller as module:function"
        )
    return lambda texts: [dict(zip(CHEXBERT, states(text), strict=True)) for text in texts]
