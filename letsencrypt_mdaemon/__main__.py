"""`python -m letsencrypt_mdaemon`."""

from letsencrypt_mdaemon.cli import main

if __name__ == "__main__":
    main()
