"""Run the program at a terminal of its own, on the stage of another process.

python -m tests.performer SCENERY COMMAND ...
"""

from __future__ import annotations

import json
import sys

import pytest

from letsencrypt_mdaemon.cli.main import main
from tests.stage import Scenery, build

if __name__ == "__main__":
    with pytest.MonkeyPatch.context() as patch:
        build(Scenery(**json.loads(sys.argv.pop(1))), patch)
        sys.argv[0] = "letsencrypt-mdaemon"
        main()
