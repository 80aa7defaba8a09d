"""``python -m popcorn_edu`` is ``popcorn-edu``."""

import sys

from popcorn_edu.cli import main

sys.exit(main())
