"""The operator's ledgers and gateways serve the decorated one as they are."""

from tests.operators.conftest import campaign, without_lookup

__all__ = ["campaign", "without_lookup"]
