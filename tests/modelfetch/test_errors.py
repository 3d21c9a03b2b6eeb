"""The tree of failures is the one that its module draws, with the codes of the contract."""

import re

import pytest

from modelfetch import errors
from modelfetch.errors import ModelfetchError

ALL = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, ModelfetchError)]


def test_the_drawing_is_the_tree() -> None:
    """Names, codes and reasons."""
    drawn = re.findall(r"── (\w+) +(\d+) +(\w+)", errors.__doc__ or "")

    assert sorted(drawn) == sorted((k.__name__, str(k.code), k.reason) for k in ALL if k is not ModelfetchError)


def test_each_reason_is_of_one_kind() -> None:
    """Machines tell them apart by it."""
    assert len({kind.reason for kind in ALL}) == len(ALL)


@pytest.mark.parametrize("kind", ALL)
def test_every_failure_has_a_message_and_a_hint(kind: type[ModelfetchError]) -> None:
    """Its text is the message."""
    error = kind("what", hint="next")

    assert (str(error), error.message, error.hint) == ("what", "what", "next")
    assert kind.retryable == (kind in (errors.TransientError, errors.ChangedError))


def test_a_signal_is_not_caught_by_what_catches_errors() -> None:
    """An SDK must not swallow it."""
    assert not issubclass(errors.Interrupted, Exception)
    assert errors.Interrupted(15).signum == 15
