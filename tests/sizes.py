"""How many rounds a seeded or repeated test runs: one code, two sizes.

``KBROKER_TEST_SIZE=ci`` (the default) keeps a run short, ``full`` is what a release is judged by.
"""

import os


def size(*, ci: int, full: int) -> int:
    """The count for the size named by the environment."""
    name = os.environ.get("KBROKER_TEST_SIZE", "ci")
    if name not in ("ci", "full"):
        raise ValueError(f"KBROKER_TEST_SIZE is {name!r}; it must be 'ci' or 'full'")
    return ci if name == "ci" else full
