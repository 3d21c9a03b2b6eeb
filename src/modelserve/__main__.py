"""`python -m modelserve`."""

import sys

from modelserve.app import main

if __name__ == "__main__":
    sys.exit(main())
