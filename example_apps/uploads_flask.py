"""The upload service as a Flask app.

Run it from the root of the checkout::

    gunicorn --worker-class gthread --threads 8 'example_apps.uploads_flask:make_app()'

Settings come from environment variables, see :meth:`UploadSettings.from_environment`;
``CLEANCLOSE=0`` leaves the middleware out. With more than one worker set ``UPLOADS_SECRET`` and
``UPLOADS_FOLDER``, so that every worker knows the tokens and files of the others.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

from flask import Flask, Response, request, send_file

from cleanclose.core import snapshot
from cleanclose.wsgi import CleanCloseMiddleware
from example_apps.uploads import CHUNK_BYTES, Refusal, UploadService, UploadSettings, log_to_stderr

Reply = tuple[Mapping[str, object], int, Mapping[str, str]]


def make_app(settings: UploadSettings | None = None) -> Flask:
    """Build the app; its settings come from the environment unless they are given."""
    settings = settings or UploadSettings.from_environment()
    service = UploadService(settings)
    log_to_stderr()
    app = Flask(__name__)

    @app.errorhandler(Refusal)
    def refuse(refusal: Refusal) -> Reply:
        return refusal.as_json(), refusal.status, refusal.headers

    @app.post("/tokens")
    def issue_token() -> Reply:
        return service.issue_token().as_json(), HTTPStatus.CREATED, {}

    @app.route("/files", methods=["PUT", "POST"])
    def store() -> Reply:
        with service.begin(request.headers) as upload:
            # request.data and request.form would read the whole body into memory.
            while chunk := request.stream.read(CHUNK_BYTES):
                upload.write(chunk)
            stored = upload.finish()
        return stored.as_json(), HTTPStatus.CREATED, {"Location": stored.location}

    @app.get("/files/<digest>")
    def serve(digest: str) -> Response:
        stored = service.find(digest)
        response = send_file(stored.path, mimetype="application/octet-stream")
        response.headers.update(stored.headers)
        return response

    @app.get("/healthz")
    def health() -> Mapping[str, str]:
        return {"status": "ok"}

    @app.get("/counters")
    def counters() -> Mapping[str, object]:
        return snapshot()

    if settings.cleanclose:
        app.wsgi_app = CleanCloseMiddleware(app.wsgi_app)  # type: ignore[method-assign]
    return app
