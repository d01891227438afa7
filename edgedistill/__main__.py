"""`python -m edgedistill`, and the command `edgedistill`."""

import sys
from typing import NoReturn


def main() -> NoReturn:
    """Run the command line; who stops it while it is still being loaded sees one line too."""
    try:
        from edgedistill.cli import main as run
    except KeyboardInterrupt:
        sys.stderr.write("edgedistill: interrupted\n")
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
