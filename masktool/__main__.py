"""``python -m masktool``."""

from masktool.cli import main

if __name__ == "__main__":
    main()
