"""`python -m magic3d_cli`, the same program as `magic3d`."""

from magic3d_cli.cli import main

if __name__ == "__main__":
    main()
