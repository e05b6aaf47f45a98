"""`python -m paceline` is the `paceline` command."""

from .launch.cli import main

main()
