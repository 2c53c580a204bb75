"""`python -m ds2d`: the command line."""

from ds2d.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
