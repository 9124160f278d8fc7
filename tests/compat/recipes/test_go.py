"""Go: franz-go."""

from __future__ import annotations

import pytest

from tests.compat.recipes.programs import KBROKER, fetch, need, succeed
from tests.compat.recipes.readme import put_file

pytestmark = pytest.mark.timeout(300)


def test_go(tmp_path):
    go = need("go", "go")
    put_file("Go", "go", tmp_path)
    (tmp_path / "go.mod").write_text("module orders\n")
    fetch("go", [go, "get", "github.com/twmb/franz-go@v1.18.1"], tmp_path)
    fetch("go", [go, "mod", "tidy"], tmp_path)
    command = [*KBROKER, "exec", "--topic", "orders", "--", go, "test", "-v", "./..."]
    assert "--- PASS: TestAnOrderArrives" in succeed(command, tmp_path)
