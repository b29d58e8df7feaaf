"""`python -m fusec`: the command line without an installed script."""

from fusec.cli import main

if __name__ == "__main__":
    main()
