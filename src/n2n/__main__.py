"""``python -m n2n`` is the command ``n2n``."""

import sys

from n2n.cli.main import main

sys.exit(main())
