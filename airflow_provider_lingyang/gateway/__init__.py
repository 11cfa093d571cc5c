"""The wire: the Taobao Open Platform gateway. Knows no Airflow and no campaign."""
