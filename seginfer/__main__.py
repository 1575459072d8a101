"""`python -m seginfer`, the same as `seginfer`."""

import sys

from ._cli import main

sys.exit(main())
