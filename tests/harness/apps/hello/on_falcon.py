from typing import Any

import falcon


class Index:
    def on_get(self, request: Any, response: Any) -> None:
        response.text = "Hello\n"


app: Any = falcon.App()
app.add_route("/", Index())
