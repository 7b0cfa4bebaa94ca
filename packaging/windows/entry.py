"""Where the frozen program starts."""

from letsencrypt_mdaemon.cli import main

main()
