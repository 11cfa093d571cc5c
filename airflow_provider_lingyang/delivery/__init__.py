"""Who gets what, in which order, and what became of it. Knows no Airflow and no HTTP."""
