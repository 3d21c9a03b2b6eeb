"""What an archive may take, and who says so when it is too much."""

import pytest

from modelfetch.archive import Budget
from modelfetch.errors import BudgetError, DestinationError


@pytest.mark.parametrize(
    ("full_disk", "error", "hint"), [(False, BudgetError, "MODELFETCH_MAX_BYTES"), (True, DestinationError, "space")]
)
def test_too_many_bytes_are_a_matter_of_the_budget_or_of_the_disk(
    *, full_disk: bool, error: type[BudgetError | DestinationError], hint: str
) -> None:
    """65 for what somebody allowed, 73 for what there is room for."""
    budget = Budget(max_bytes=10, max_files=1, max_ratio=1, limited_by_disk=full_disk)
    budget.check_bytes(10, "m.tar")

    with pytest.raises(error, match=r"m\.tar holds more than (the )?10 bytes") as caught:
        budget.check_bytes(11, "m.tar")
    assert hint in caught.value.hint
