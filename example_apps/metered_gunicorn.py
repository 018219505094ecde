"""gunicorn's settings for the metered service (``example_apps/metered.py``)."""

from cleanclose.integrations.prometheus import child_exit

__all__ = ["child_exit", "threads", "worker_class", "workers"]

workers = 4
worker_class = "gthread"
threads = 4
