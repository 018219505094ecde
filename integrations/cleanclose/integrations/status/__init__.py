"""A page that shows this process's counters and recent events, with nothing else to install.

It is off by default: make one, put it among the outlets, and mount it where only you can reach
it. It comes as an ASGI application, a WSGI application and a Tornado handler; all three show the
same.

.. code-block:: python

    page = StatusPage()
    app = Starlette(routes=[Mount("/status", page.asgi)])
    app.add_middleware(CleanCloseMiddleware, outlets=[StructlogOutlet(), page])

A client that asks for ``application/json`` gets JSON, all others HTML: one document without
scripts, pictures or fonts to load.
"""

from cleanclose.integrations.status.drawing import render
from cleanclose.integrations.status.page import StatusPage

__all__ = ["StatusPage", "render"]
