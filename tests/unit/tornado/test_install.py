"""Installing Tornado's shim, without a server."""

from __future__ import annotations

import pytest
from tornado import web

from cleanclose.tornado import install


def test_bad_settings_are_refused_where_they_are_given() -> None:
    with pytest.raises(ValueError, match="max_bytes"):
        install(web.Application(), max_bytes=-1)
