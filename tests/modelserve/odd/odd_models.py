"""Test models that block, fail or return unusual values; importable, because pickles refer to classes by name."""

import time
from pathlib import Path
from typing import Any

import numpy as np


class Blocking:
    """Model that blocks until the file `release` exists; the file `asked` marks the first call."""

    n_features_in_ = 1

    def __init__(self, folder: Path) -> None:
        """Set the folder of both files."""
        self.folder = folder

    def predict(self, rows: Any) -> list[float]:
        """Return zeros once `release` exists."""
        (self.folder / "asked").touch()
        deadline = time.monotonic() + 60  # bounds a failing test
        while not (self.folder / "release").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        return [0.0] * len(rows)


class Saying:
    """Model that predicts a constant for each row."""

    def __init__(self, value: Any) -> None:
        """Set the constant to predict."""
        self.value = value

    def predict(self, rows: Any) -> Any:
        """Return the constant for each row."""
        return np.array([self.value] * len(rows), dtype=object)


class Failing:
    """Model that raises a given error."""

    n_features_in_ = 1

    def __init__(self, error: Exception) -> None:
        """Set the error to raise."""
        self.error = error

    def predict(self, rows: Any) -> Any:
        """Raise the error of the constructor."""
        raise self.error


class Exiting:
    """Object that ends the interpreter when unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Unpickle as a call of `exit`."""
        return (exit, (0,))
