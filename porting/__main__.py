"""`python -m porting`: the command line of the kit."""

from porting.commands.app import main

if __name__ == "__main__":
    main()
