"""`python -m singleshot`: the same as `singleshot`."""

import sys

from singleshot.cli import main

if __name__ == "__main__":  # worker processes import this file again
    sys.exit(main())
