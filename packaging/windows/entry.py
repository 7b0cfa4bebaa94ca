"""Where the frozen program starts."""

from letsencrypt_mdaemon.cli.main import main

main()
