"""All faults of the campaign, in the order of the table."""

from faults.network import NETWORK
from faults.stored import STORED

FAULTS = (*NETWORK, *STORED)
