"""Where the frozen program starts."""  # noqa: INP001 - no package: a script

from letsencrypt_mdaemon.cli.main import main

main()
