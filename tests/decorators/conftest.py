"""The operator's ledgers and gateways serve the decorated one as they are."""

from tests.operators.conftest import blind, campaign

__all__ = ["blind", "campaign"]
