"""`python -m davsql`."""

from davsql.cli.main import main

main()
