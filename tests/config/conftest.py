from __future__ import annotations

from pathlib import Path

import pytest

from gateway.adapters.dev_certificates import make_dev_certificates


@pytest.fixture(scope="session")
def dev_certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of `pangate certs dev`, made once."""
    directory = tmp_path_factory.mktemp("certs")
    make_dev_certificates(directory)
    return directory
