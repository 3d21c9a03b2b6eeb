"""Every fault of the fault campaign, in the order of the table."""

from tests.faults.network_faults import NETWORK_FAULTS
from tests.faults.store_faults import STORE_FAULTS

FAULTS = (*NETWORK_FAULTS, *STORE_FAULTS)
