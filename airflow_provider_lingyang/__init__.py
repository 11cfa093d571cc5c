"""Airflow provider for Lingyang customer-service cloud (瓴羊客服云).

Nothing but the version lives here: Airflow imports this module while it discovers providers.
"""

__version__ = "0.1.0"
