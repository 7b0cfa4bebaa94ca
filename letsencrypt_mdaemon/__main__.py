"""`python -m letsencrypt_mdaemon`."""

from letsencrypt_mdaemon.cli.main import main

if __name__ == "__main__":
    main()
