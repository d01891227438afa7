"""`python -m edgedistill`."""

from edgedistill.cli import main

if __name__ == "__main__":
    main()
