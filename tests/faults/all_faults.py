"""All faults of the campaign, in the order of the table."""

from tests.faults.network_faults import NETWORK
from tests.faults.store_faults import STORED

FAULTS = (*NETWORK, *STORED)
