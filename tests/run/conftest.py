from pathlib import Path

import pytest
from small_checkout import Checkout, build


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return build(tmp_path / "check out")  # a space, as on many machines
