"""Budget of an archive: user limits and disk limits."""

import pytest

from modelfetch.archive import Budget
from modelfetch.errors import BudgetError, DestinationError


@pytest.mark.parametrize(
    ("full_disk", "error", "hint"), [(False, BudgetError, "MODELFETCH_MAX_BYTES"), (True, DestinationError, "space")]
)
def test_check_bytes_blames_the_user_limit_or_the_disk(
    *, full_disk: bool, error: type[BudgetError | DestinationError], hint: str
) -> None:
    """Content above the user's limit is a BudgetError (65), above the free disk space a DestinationError (73)."""
    budget = Budget(max_bytes=10, max_files=1, max_ratio=1, limited_by_disk=full_disk)
    budget.check_bytes(10, "m.tar")

    with pytest.raises(error, match=r"m\.tar holds more than (the )?10 bytes") as caught:
        budget.check_bytes(11, "m.tar")
    assert hint in caught.value.hint
