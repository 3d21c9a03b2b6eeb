"""Models that scikit-learn does not have: they block, fail or answer oddly. Pickled by reference, so importable."""

import time
from pathlib import Path
from typing import Any

import numpy as np


class Blocking:
    """Predicts once a file is there, and says by another file that it was asked."""

    n_features_in_ = 1

    def __init__(self, folder: Path) -> None:
        """Take the folder of both files."""
        self.folder = folder

    def predict(self, rows: Any) -> list[float]:
        """Zeros, when `release` exists."""
        (self.folder / "asked").touch()
        deadline = time.monotonic() + 60  # a failing test must end, too
        while not (self.folder / "release").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        return [0.0] * len(rows)


class Saying:
    """Answers each row with the same value."""

    def __init__(self, value: Any) -> None:
        """Take the value."""
        self.value = value

    def predict(self, rows: Any) -> Any:
        """The value, once for each row."""
        return np.array([self.value] * len(rows), dtype=object)


class Failing:
    """Raises what it was given."""

    n_features_in_ = 1

    def __init__(self, error: Exception) -> None:
        """Take the error."""
        self.error = error

    def predict(self, rows: Any) -> Any:
        """Raise."""
        raise self.error


class Exiting:
    """Ends the interpreter when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Unpickle as a call of exit."""
        return (exit, (0,))
