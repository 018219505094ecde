"""The routes on Tornado for the soak: with outlets that misbehave, and a census.

Run as ``python -m tests.harness.apps.soaked_tornado PORT``.
"""

from __future__ import annotations

import asyncio
import logging
import sys

from tornado.log import enable_pretty_logging
from tornado.web import Application

from cleanclose.tornado import install
from tests.harness.apps import routes, soaking, tornado_app


class Census(tornado_app.Handler):
    async def act(self) -> None:
        await self.say(soaking.census(len(asyncio.all_tasks()), tornado_app.seen))


def make_app() -> Application:
    """The app as the environment asks for it."""
    application = tornado_app.bare()
    application.add_handlers(".*", [(soaking.CENSUS, Census)])
    if routes.wrapped():
        return install(application, outlets=soaking.outlets(), **routes.settings())
    return application


if __name__ == "__main__":
    logging.getLogger("tornado.access").setLevel(logging.ERROR)
    logging.getLogger().setLevel(logging.INFO)
    enable_pretty_logging()
    asyncio.run(tornado_app.main(int(sys.argv[1]), make_app()))
