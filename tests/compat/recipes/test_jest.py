"""Jest: kafkajs."""

from __future__ import annotations

import pytest

from tests.compat.recipes.programs import KBROKER, fetch, need, succeed
from tests.compat.recipes.readme import put_file

pytestmark = pytest.mark.timeout(300)


def test_jest(tmp_path):
    npm, npx = need("node", "npm"), need("node", "npx")
    put_file("Jest", "js", tmp_path)
    (tmp_path / "package.json").write_text('{"private": true}\n')
    packages = ("jest@29.7.0", "kafkajs@2.2.4")
    quietly = ("--silent", "--no-audit", "--no-fund", "--prefer-offline")
    fetch("node", [npm, "install", *quietly, *packages], tmp_path)
    command = [*KBROKER, "exec", "--topic", "orders", "--", npx, "jest", "--ci"]
    assert "1 passed, 1 total" in succeed(command, tmp_path)
