"""``python -m kbroker`` is the ``kbroker`` command."""

import sys

from kbroker.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
