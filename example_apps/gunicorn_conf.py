"""gunicorn with an access log that tells the truth: ``gunicorn -c example_apps/gunicorn_conf.py``.

``example_apps.uploads_flask:app`` is the application to try it with.
"""

accesslog = "-"
logger_class = "cleanclose.integrations.gunicorn.Logger"
