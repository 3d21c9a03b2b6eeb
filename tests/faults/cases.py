"""All faults of the campaign, in the order of the table."""

from tests.faults.network import NETWORK
from tests.faults.stored import STORED

FAULTS = (*NETWORK, *STORED)
