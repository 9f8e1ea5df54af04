"""localstripe on loopback, with nothing on disk. Run by the interpreter of the peers' environment: `PORT`.

As a command of its own it would listen on every interface and pickle its store, card numbers and all, to /tmp.
"""

from __future__ import annotations

import sys

from aiohttp import web
from localstripe import resources
from localstripe.server import app

if __name__ == "__main__":
    resources.Store.dump_to_disk = lambda store: None
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), print=None, access_log=None)
